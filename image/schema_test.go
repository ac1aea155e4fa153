package image_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sourcery-zone/sandbox/image"
)

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(image.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("manifest", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("manifest")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaAndParserAgree reads examples of both kinds with both.
func TestSchemaAndParserAgree(t *testing.T) {
	schema := compileSchema(t)
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		valid := !strings.HasPrefix(filepath.Base(file), "bad-")
		if err := schema.Validate(doc); (err == nil) != valid {
			t.Errorf("%s by the schema: %v", file, err)
		}
		if _, err := image.Parse(data); (err == nil) != valid {
			t.Errorf("%s by Parse: %v", file, err)
		}
	}
}

// TestSchemaKnowsEveryField compares the properties of the schema with the
// fields of the Go types, in both directions.
func TestSchemaKnowsEveryField(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(image.Schema, &doc); err != nil {
		t.Fatal(err)
	}
	file := in(in(doc, "$defs"), "file")
	var compare func(where string, typ reflect.Type, schema map[string]any)
	compare = func(where string, typ reflect.Type, schema map[string]any) {
		if schema["$ref"] == "#/$defs/file" {
			schema = file
		}
		properties := in(schema, "properties")
		fields := jsonFields(typ)
		names, known := slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(properties))
		if !slices.Equal(names, known) {
			t.Errorf("%s: the type has %v, the schema %v", where, names, known)
			return
		}
		for name, field := range fields {
			sub := in(properties, name)
			if field.Kind() == reflect.Slice && field.Elem().Kind() == reflect.Struct {
				field, sub = field.Elem(), in(sub, "items")
			}
			if field.Kind() == reflect.Struct && field != reflect.TypeFor[time.Time]() {
				compare(where+"."+name, field, sub)
			}
		}
	}
	compare("manifest", reflect.TypeFor[image.Manifest](), doc)
}

// jsonFields are the fields of a struct as encoding/json sees them.
func jsonFields(typ reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for f := range typ.Fields() {
		if f.Anonymous {
			maps.Copy(fields, jsonFields(f.Type))
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
	}
	return fields
}
