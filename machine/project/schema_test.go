package project

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sourcery-zone/sandbox/machine"
)

func schema(t *testing.T, layer Layer) (map[string]any, *jsonschema.Schema) {
	t.Helper()
	data, err := Schema(layer)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("file", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("file")
	if err != nil {
		t.Fatal(err)
	}
	return doc.(map[string]any)["properties"].(map[string]any), compiled
}

func TestSchemaHasTheOptionsOfEachFile(t *testing.T) {
	for layer, want := range map[Layer][]string{
		ProjectFile: {"agent", "agent-home", "allow", "allow-host-port", "cache", "cpus", "deny", "disk", "flake", "image", "memory", "net", "publish", "secret", "share", "timeout", "workdir"},
		UserFile:    {"agent", "agent-home", "allow", "allow-host-port", "cache", "cpus", "deny", "disk", "flake", "gpg-agent", "home-quota", "image", "memory", "net", "publish", "restart", "secret", "share", "ssh-agent", "ssh-key", "ssh-port", "timeout", "trust-host-ca", "upstream-proxy", "workdir"},
	} {
		properties, _ := schema(t, layer)
		if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, want) {
			t.Errorf("%v: %v\nwant %v", Source{layer, "file"}, got, want)
		}
		for name, property := range properties {
			if property.(map[string]any)["description"] == "" {
				t.Errorf("%s has no description", name)
			}
		}
	}
}

// TestSchemaAndParserAgree reads examples with both: first those that count in either
// file, and then those that only the user's own may have.
func TestSchemaAndParserAgree(t *testing.T) {
	const outside = `flake = "github:o/r#image"` // of the project, which a schema cannot tell
	for text, layers := range map[string][]Layer{
		``:                                 {ProjectFile, UserFile},
		`image = "debian"`:                 {ProjectFile, UserFile},
		`image = "claude.v2@3f0c9e1b7a52"`: {ProjectFile, UserFile},
		`image = ".hidden"`:                {ProjectFile, UserFile},
		`image = "./result"`:               nil,
		`image = "a/b"`:                    nil,
		`image = "."`:                      nil,
		`image = ".."`:                     nil,
		`image = ["debian"]`:               nil,
		`flake = "github:o/r#image"`:       {UserFile}, // as a schema cannot tell
		"flake = \"github:o/r#image\"\nimage = \"debian\"": nil,
		`memory = 4096`:               {ProjectFile, UserFile},
		`memory = "4096"`:             {ProjectFile, UserFile},
		`memory = "1.5 GiB"`:          {ProjectFile, UserFile},
		`memory = "512m"`:             {ProjectFile, UserFile},
		`memory = "100b"`:             {ProjectFile, UserFile},
		`memory = "4 quarters"`:       nil,
		`memory = "4Gi"`:              nil,
		`memory = "G"`:                nil,
		`memory = "-1G"`:              nil,
		`memory = -1`:                 nil,
		`memory = 1.5`:                nil,
		`memory = true`:               nil,
		`memory = {size = 4}`:         nil,
		`cpus = 4`:                    {ProjectFile, UserFile},
		`cpus = "4"`:                  nil,
		`cpus = -4`:                   nil,
		`disk = "20G"`:                {ProjectFile, UserFile},
		`timeout = "1m30s"`:           {ProjectFile, UserFile},
		`timeout = "1.5h"`:            {ProjectFile, UserFile},
		`timeout = "90"`:              nil,
		`timeout = "-90s"`:            nil,
		`timeout = 90`:                nil,
		`workdir = "/srv"`:            {ProjectFile, UserFile},
		`share = "."`:                 {ProjectFile, UserFile},
		`share = [".", "docs:d:ro"]`:  {ProjectFile, UserFile},
		`share = []`:                  {ProjectFile, UserFile},
		`share = ".:refuse=docs/**"`:  {ProjectFile, UserFile},
		`share = [1]`:                 nil,
		`share = ":docs"`:             nil,
		`net = "none"`:                {ProjectFile, UserFile},
		`net = "bridged"`:             nil,
		`publish = ["8080:80"]`:       {ProjectFile, UserFile},
		`publish = "8080:80"`:         {ProjectFile, UserFile},
		`publish = "auto"`:            {ProjectFile, UserFile},
		`allow = ["a.example"]`:       {ProjectFile, UserFile},
		`allow = 443`:                 nil,
		`deny = "a.example"`:          {ProjectFile, UserFile},
		`allow-host-port = "5432:db"`: {ProjectFile, UserFile},
		`secret = "K@a.example"`:      {ProjectFile, UserFile},
		`secret = {K = "a.example"}`:  nil,
		`publish = 8080`:              nil,
		`ssh-port = 2222`:             {UserFile},
		`ssh-port = "2222"`:           nil,
		`ssh-key = "id.pub"`:          {UserFile},
		`restart = "always"`:          {UserFile},
		`restart = "sometimes"`:       nil,
		`memoy = "4G"`:                nil,
		`allow-weak-isolation = true`: nil,
		`name = "work"`:               nil,
	} {
		var document map[string]any
		if err := toml.Unmarshal([]byte(text), &document); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		data, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, layer := range []Layer{ProjectFile, UserFile} {
			valid := slices.Contains(layers, layer)
			project, user := text, ""
			if layer == UserFile {
				project, user = "", text
			}
			if _, _, err := load(t, project, user); (err == nil) != valid {
				t.Errorf("%s in the file %d by the parser: %v", text, layer, err)
			}
			_, schema := schema(t, layer)
			if err := schema.Validate(instance); (err == nil) != (valid || text == outside) {
				t.Errorf("%s in the file %d by the schema: %v", text, layer, err)
			}
		}
	}
}

func TestDefaultsAreValuesOfTheirOptions(t *testing.T) {
	names := map[string]bool{}
	for _, o := range Options() {
		if names[o.Name] || names[o.Letter] && o.Letter != "" {
			t.Errorf("%s or %s is there twice", o.Name, o.Letter)
		}
		names[o.Name], names[o.Letter] = true, true
		if o.Default != "" {
			if err := o.check(o.Default); err != nil {
				t.Errorf("%s: %v", o.Name, err)
			}
		}
	}
	if d, err := time.ParseDuration(Find("timeout").Default); err != nil || d != machine.DefaultReadyTimeout {
		t.Errorf("%v, %v", d, err)
	}
	for _, policy := range Find("restart").Values {
		if _, err := machine.ParseRestart(policy); err != nil {
			t.Error(err)
		}
	}
}

// TestWhatOpensTheHostIsNotForProjects is the rule that trust follows: what gives the
// guest more of the host, or others more of the guest, no project's file may set, unless
// it is held to the project, to what the user has, or to the user's consent.
func TestWhatOpensTheHostIsNotForProjects(t *testing.T) {
	for name, most := range map[string]Trust{
		"allow-weak-isolation": Caller, "allow-dangerous-share": Caller,
		"net": Narrower, "allow": Consent, "allow-host-port": Consent, "publish": Consent, "secret": Consent, "upstream-proxy": User, "trust-host-ca": User, "ssh-port": User, "ssh-key": User, "ssh-agent": User, "gpg-agent": User, "restart": User,
		"share": Inside, "flake": Inside,
	} {
		if o := Find(name); o.Trust > most {
			t.Errorf("%s may be set by more than %d: %d", name, most, o.Trust)
		}
	}
}
