// Renders every case of a file with Go's own text/template and writes what came of it as JSON.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// The data of every case; data() in ../template.rs makes the same.
type inner struct {
	Name  string
	Count int
}

type shouts string

func (s shouts) String() string { return strings.ToUpper(string(s)) + "!" }

type words []string

func (w words) String() string { return strings.Join(w, "+") }

func (w words) First() string { return w[0] }

type marked struct {
	Name  string  `json:"name"`
	Note  string  `json:"note,omitempty"`
	Ratio float64 `json:"ratio"`
	List  []any   `json:"list,omitempty"`
	Inner inner   `json:"inner"`
}

var data = map[string]any{
	"Text":   "hello <world> & \"you\"",
	"Empty":  "",
	"Wide":   "grüße 世界",
	"Zero":   0,
	"One":    1,
	"Big":    1234567,
	"Minus":  -7,
	"Float":  2.5,
	"Large":  1e6,
	"Tiny":   0.00001234,
	"Yes":    true,
	"No":     false,
	"Nil":    nil,
	"List":   []any{"a", "b", "c"},
	"Mixed":  []any{1, "two", 3.5, true, nil, []any{1, 2}, map[string]any{"k": "v"}},
	"None":   []any{},
	"Map":    map[string]any{"b": 2, "a": 1, "c": "three", "nil": nil},
	"Deep":   map[string]any{"x": map[string]any{"y": map[string]any{"z": "found"}}},
	"Struct": inner{"n", 3},
	"Marked": marked{"m", "", 0.5, nil, inner{"i", 0}},
	"Shouts": shouts("hey"),
	"Words":  words{"x", "y"},
	"Rows":   []any{inner{"r1", 1}, inner{"r2", 2}},
}

type result struct {
	Template string  `json:"template"`
	Output   *string `json:"output,omitempty"`
	Error    string  `json:"error,omitempty"`
	Line     int     `json:"line,omitempty"`
}

var place = regexp.MustCompile(`^template: [^:]*:(\d+)`)

func main() {
	cases, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var results []result
	for _, text := range strings.Split(string(cases), "\n----\n") {
		results = append(results, render(text, data))
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(results); err != nil {
		panic(err)
	}
}

var functions = template.FuncMap{
	"json": func(v any) string {
		b, _ := json.Marshal(v)
		return string(b)
	},
}

func render(text string, data any) result {
	r := result{Template: text}
	var out bytes.Buffer
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(text)
	if err == nil {
		err = parsed.Execute(&out, data)
	}
	if err != nil {
		r.Error = err.Error()
		if found := place.FindStringSubmatch(r.Error); found != nil {
			r.Line, _ = strconv.Atoi(found[1])
		}
		return r
	}
	s := out.String()
	r.Output = &s
	return r
}
