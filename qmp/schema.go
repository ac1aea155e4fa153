package qmp

import (
	"context"
	"maps"
	"slices"
)

// Schema is what a QEMU says about its own commands, for completion.
type Schema struct {
	commands map[string]string       // to the name of the type of its arguments
	types    map[string]schemaEntity // by name, which QEMU makes up
}

// Argument is one argument of a command.
type Argument struct {
	Name   string
	Values []string // all that it can be, if these are few
}

type schemaEntity struct {
	Name     string `json:"name"`
	MetaType string `json:"meta-type"`
	ArgType  string `json:"arg-type"`
	JSONType string `json:"json-type"`
	Members  []struct {
		Name string `json:"name"`
		Type string `json:"type"`
	} `json:"members"`
	Values []string `json:"values"`
}

// Schema asks for the schema of this QEMU.
func (c *Client) Schema(ctx context.Context) (*Schema, error) {
	var raw []schemaEntity
	if err := c.Execute(ctx, "query-qmp-schema", nil, &raw); err != nil {
		return nil, err
	}
	s := &Schema{commands: map[string]string{}, types: map[string]schemaEntity{}}
	for _, e := range raw {
		if e.MetaType == "command" {
			s.commands[e.Name] = e.ArgType
		} else {
			s.types[e.Name] = e
		}
	}
	return s, nil
}

// Commands returns the names of all commands in order.
func (s *Schema) Commands() []string { return slices.Sorted(maps.Keys(s.commands)) }

// Arguments returns the arguments of a command.
func (s *Schema) Arguments(command string) []Argument {
	var out []Argument
	for _, m := range s.types[s.commands[command]].Members {
		a := Argument{Name: m.Name}
		switch t := s.types[m.Type]; {
		case t.MetaType == "enum":
			a.Values = t.Values
			for _, member := range t.Members { // where newer QEMUs have them
				if !slices.Contains(a.Values, member.Name) {
					a.Values = append(a.Values, member.Name)
				}
			}
		case t.JSONType == "boolean":
			a.Values = []string{"false", "true"}
		}
		out = append(out, a)
	}
	return out
}
