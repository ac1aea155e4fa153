package project

import (
	"encoding/json"
	"fmt"
	"strings"
)

// form is what values of a kind look like in a file.
type form struct {
	text, number, list bool
	pattern            string // of a text
	words              string
}

func (f form) wrong() error { return fmt.Errorf("the value must be %s", f.words) }

const (
	wordsOfText = `text in quotes`
	wordsOfList = `text in quotes, or a list such as ["one", "two"]`
)

var forms = map[Kind]form{
	Text:     {text: true, words: wordsOfText},
	Number:   {number: true, words: `a whole number without quotes`},
	Size:     {text: true, number: true, pattern: `^[0-9]+(\.[0-9]+)? ?([kKmMgGtTpP]([iI]?[bB])?|[bB])?$`, words: `a whole number, or text such as "4G"`},
	Duration: {text: true, pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`, words: wordsOfText},
	List:     {text: true, list: true, words: wordsOfList},
	Image:    {text: true, pattern: `^([^/.]|\.[^/.]|\.\.[^/])[^/]*$|^$`, words: wordsOfText},
	Flake:    {text: true, words: wordsOfText},
	Shares:   {text: true, list: true, pattern: `^[^:]`, words: wordsOfList},
}

// Schema is the JSON Schema of a project's file, or of the user's own, for editors. What
// only this machine can tell it leaves open, such as whether a directory lies in the
// project.
func Schema(layer Layer) ([]byte, error) {
	properties := map[string]any{}
	for _, o := range Options() {
		if o.InFile(layer) {
			properties[o.Name] = o.schema()
		}
	}
	title := FileName
	if layer == UserFile {
		title = "The user's own settings for sandboxes"
	}
	return json.MarshalIndent(map[string]any{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                title,
		"type":                 "object",
		"properties":           properties,
		"additionalProperties": false,
		"not":                  map[string]any{"required": []string{"image", "flake"}}, // both name an image
	}, "", "  ")
}

func (o Option) schema() map[string]any {
	form := forms[o.Kind]
	var alternatives []any
	if form.text {
		text := map[string]any{"type": "string"}
		if form.pattern != "" {
			text["pattern"] = form.pattern
		}
		if len(o.Values) > 0 {
			text["enum"] = o.Values
		}
		if form.list {
			alternatives = append(alternatives, map[string]any{"type": "array", "items": text})
		}
		alternatives = append(alternatives, text)
	}
	if form.number {
		alternatives = append(alternatives, map[string]any{"type": "integer", "minimum": 0})
	}
	schema := map[string]any{"anyOf": alternatives}
	if len(alternatives) == 1 {
		schema = alternatives[0].(map[string]any)
	}
	schema["description"] = strings.ReplaceAll(o.Usage, "`", "")
	if o.Default != "" {
		schema["default"] = o.Default
	}
	return schema
}
