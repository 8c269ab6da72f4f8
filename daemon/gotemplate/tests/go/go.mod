module expected

go 1.24
