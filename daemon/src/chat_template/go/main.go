// Renders every chat of chats.json with every template here, by Ollama's rules and with Go's own text/template.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

func marshal(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

type toolList []tool
type arguments map[string]any
type properties map[string]property

func (t toolList) String() string   { return marshal(t) }
func (t tool) String() string       { return marshal(t) }
func (t function) String() string   { return marshal(t) }
func (t parameters) String() string { return marshal(t) }

func (t arguments) String() string {
	if t == nil {
		return "{}"
	}
	return marshal(map[string]any(t))
}

func (t properties) String() string {
	if t == nil {
		return "{}"
	}
	return marshal(map[string]property(t))
}

type tool struct {
	Type     string   `json:"type"`
	Items    any      `json:"items,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Parameters  parameters `json:"parameters"`
}

type parameters struct {
	Type       string     `json:"type"`
	Defs       any        `json:"$defs,omitempty"`
	Items      any        `json:"items,omitempty"`
	Required   []string   `json:"required,omitempty"`
	Properties properties `json:"properties"`
}

type property struct {
	AnyOf       []property   `json:"anyOf,omitempty"`
	Type        propertyType `json:"type,omitempty"`
	Items       any          `json:"items,omitempty"`
	Description string       `json:"description,omitempty"`
	Enum        []any        `json:"enum,omitempty"`
	Properties  *ordered     `json:"properties,omitempty"`
	Required    []string     `json:"required,omitempty"`
}

func (p property) ToTypeScriptType() string {
	names := []string{}
	for _, one := range p.AnyOf {
		names = append(names, one.ToTypeScriptType())
	}
	if len(names) > 0 {
		return strings.Join(names, " | ")
	}
	known := map[string]string{"string": "string", "number": "number", "integer": "number", "boolean": "boolean",
		"array": "any[]", "object": "Record<string, any>", "null": "null"}
	for _, name := range p.Type {
		if known[name] == "" {
			name = ""
		}
		names = append(names, known[name])
	}
	if len(names) == 0 {
		return "any"
	}
	return strings.Join(names, " | ")
}

type propertyType []string

func (t *propertyType) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = propertyType{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

func (t propertyType) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

func (t propertyType) String() string {
	if len(t) == 1 {
		return t[0]
	}
	if len(t) == 0 {
		return ""
	}
	return "[" + strings.Join(t, " ") + "]"
}

// Properties in the order of the JSON that they came from.
type ordered struct {
	keys   []string
	values map[string]property
}

func (o *ordered) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &o.values); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.Token()
	for decoder.More() {
		key, _ := decoder.Token()
		o.keys = append(o.keys, key.(string))
		var skipped json.RawMessage
		decoder.Decode(&skipped)
	}
	return nil
}

func (o ordered) MarshalJSON() ([]byte, error) {
	pairs := []string{}
	for _, key := range o.keys {
		pairs = append(pairs, marshal(key)+":"+marshal(o.values[key]))
	}
	return []byte("{" + strings.Join(pairs, ",") + "}"), nil
}

type message struct {
	Role, Content, Thinking string
	Images                  [][]byte
	ToolCalls               []toolCall
	ToolName, ToolCallID    string
}

type toolCall struct {
	ID       string
	Function calledFunction
}

type calledFunction struct {
	Index     int
	Name      string
	Arguments arguments
}

// A chat as Hearth's protocol has it.
type chat struct {
	Messages []struct {
		Role      string
		Content   string
		Reasoning string
		ToolCalls []struct{ ID, Name, Arguments string } `json:"tool_calls"`
		CallID    string                                 `json:"tool_call_id"`
	}
	Tools []struct {
		Name, Description string
		Parameters        parameters
	}
	Think *bool
}

var functions = template.FuncMap{
	"json":          marshal,
	"currentDate":   func(...string) string { return "today" },
	"yesterdayDate": func(...string) string { return "yesterday" },
	"toTypeScriptType": func(v any) string {
		if p, ok := v.(property); ok {
			return p.ToTypeScriptType()
		}
		return "any"
	},
}

func (c chat) messages() (system string, messages []*message) {
	names := map[string]string{}
	var systems []string
	for _, m := range c.Messages {
		if m.Role == "system" {
			systems = append(systems, m.Content)
		}
		if n := len(messages); n > 0 && messages[n-1].Role == m.Role && m.Role != "tool" {
			messages[n-1].Content += "\n\n" + m.Content
			continue
		}
		made := &message{Role: m.Role, Content: m.Content, Thinking: m.Reasoning, ToolCallID: m.CallID, ToolName: names[m.CallID]}
		for _, call := range m.ToolCalls {
			names[call.ID] = call.Name
			var args arguments
			if err := json.Unmarshal([]byte(call.Arguments), &args); err != nil {
				panic(err)
			}
			made.ToolCalls = append(made.ToolCalls, toolCall{call.ID, calledFunction{0, call.Name, args}})
		}
		messages = append(messages, made)
	}
	return strings.Join(systems, "\n\n"), messages
}

func names(t *template.Template) []string {
	var found []string
	var look func(n parse.Node)
	list := func(l *parse.ListNode) {
		if l != nil {
			for _, n := range l.Nodes {
				look(n)
			}
		}
	}
	pipe := func(p *parse.PipeNode) {
		if p != nil {
			look(p)
		}
	}
	look = func(n parse.Node) {
		switch n := n.(type) {
		case *parse.ActionNode:
			pipe(n.Pipe)
		case *parse.TemplateNode:
			pipe(n.Pipe)
		case *parse.IfNode:
			pipe(n.Pipe)
			list(n.List)
			list(n.ElseList)
		case *parse.WithNode:
			pipe(n.Pipe)
			list(n.List)
			list(n.ElseList)
		case *parse.RangeNode:
			pipe(n.Pipe)
			list(n.List)
			list(n.ElseList)
		case *parse.PipeNode:
			for _, c := range n.Cmds {
				for _, a := range c.Args {
					look(a)
				}
			}
		case *parse.FieldNode:
			found = append(found, n.Ident...)
		case *parse.VariableNode:
			found = append(found, n.Ident...)
		}
	}
	for _, one := range t.Templates() {
		list(one.Root)
	}
	for i := range found {
		found[i] = strings.ToLower(found[i])
	}
	return found
}

// Everything after the first .Response goes.
func cut(list *parse.ListNode) bool {
	for i, n := range list.Nodes {
		done := false
		switch n := n.(type) {
		case *parse.ActionNode:
			for j, c := range n.Pipe.Cmds {
				for _, a := range c.Args {
					if f, ok := a.(*parse.FieldNode); ok && slices.Contains(f.Ident, "Response") {
						done = true
						if j+1 < len(n.Pipe.Cmds) {
							// What it would go to is cut off, and the action with it.
							list.Nodes = list.Nodes[:i]
							return true
						}
					}
				}
			}
		case *parse.IfNode:
			done = cut(n.List)
			if done {
				n.ElseList = nil
			} else if n.ElseList != nil {
				done = cut(n.ElseList)
			}
		}
		if done {
			list.Nodes = list.Nodes[:i+1]
			return true
		}
	}
	return false
}

func render(source string, c chat) (string, error) {
	t := template.Must(template.New("").Option("missingkey=zero").Funcs(functions).Parse(source))
	used := names(t)
	if !slices.Contains(used, "messages") && !slices.Contains(used, "response") {
		t = template.Must(template.New("").Option("missingkey=zero").Funcs(functions).Parse(source + "{{ .Response }}"))
	}
	think, level := false, ""
	if c.Think != nil && *c.Think {
		think, level = true, "medium"
	}
	data := func(more map[string]any) map[string]any {
		more["Think"], more["ThinkLevel"], more["IsThinkSet"] = think, level, c.Think != nil
		return more
	}
	var out bytes.Buffer
	system, messages := c.messages()
	if slices.Contains(used, "messages") {
		var tools toolList
		for _, one := range c.Tools {
			tools = append(tools, tool{Type: "function", Function: function{one.Name, one.Description, one.Parameters}})
		}
		err := t.Execute(&out, data(map[string]any{"System": system, "Messages": messages, "Tools": tools, "Response": ""}))
		return out.String(), err
	}
	system, prompt, response := "", "", ""
	turn := func(t *template.Template) error {
		err := t.Execute(&out, data(map[string]any{"System": system, "Prompt": prompt, "Response": response}))
		system, prompt, response = "", "", ""
		return err
	}
	for _, m := range messages {
		if m.Role == "system" && (prompt != "" || response != "") || m.Role == "user" && response != "" {
			if err := turn(t); err != nil {
				return "", err
			}
		}
		switch m.Role {
		case "system":
			system = m.Content
		case "user":
			prompt = m.Content
		case "assistant":
			response = m.Content
		}
	}
	cut(t.Root)
	err := turn(t)
	return out.String(), err
}

type result struct {
	Template string `json:"template"`
	Chat     string `json:"chat"`
	Prompt   string `json:"prompt"`
}

func main() {
	text, err := os.ReadFile("chats.json")
	if err != nil {
		panic(err)
	}
	var chats map[string]chat
	if err := json.Unmarshal(text, &chats); err != nil {
		panic(err)
	}
	files, _ := filepath.Glob("*.gotmpl")
	var results []result
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		keys := []string{}
		for name := range chats {
			keys = append(keys, name)
		}
		slices.Sort(keys)
		for _, name := range keys {
			prompt, err := render(string(source), chats[name])
			if err != nil {
				panic(file + " " + name + ": " + err.Error())
			}
			results = append(results, result{strings.TrimSuffix(file, ".gotmpl"), name, prompt})
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(results); err != nil {
		panic(err)
	}
}
