module chats

go 1.24
