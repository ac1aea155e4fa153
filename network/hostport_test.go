package network

import (
	"strings"
	"testing"
)

func TestHostPorts(t *testing.T) {
	for spec, want := range map[string]HostPort{
		"5432":                       {5432, ""},
		"11434:ollama":               {11434, "ollama.sandbox.internal"},
		"80:host.docker.internal":    {80, "host.docker.internal"},
		"65535:a-b.sandbox.internal": {65535, "a-b.sandbox.internal"},
	} {
		got, err := ParseHostPort(spec)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", spec, got, err, want)
		}
		if again, err := ParseHostPort(got.String()); err != nil || again != got {
			t.Errorf("%s is written %s, which is %+v, %v", spec, got, again, err)
		}
	}
	for spec, want := range map[string]string{
		"":                              `at character 1, "" is not a port`,
		"0":                             "is not a port from 1",
		"65536":                         "is not a port from 1",
		"db:5432":                       `"db" is not a port`,
		"80:":                           `at character 4, "" is not a name`,
		"80:Host":                       "at character 4, a name has small letters",
		"80:-a":                         "is not a name",
		"80:a..internal":                "is not a name",
		"80:api.example.com":            "is not below internal",
		"80:a\x1b":                      "at character 5",
		"80:policy":                     "policy.sandbox.internal is where",
		"80:internal":                   "", // a label as others are
		"80:x.internal:tcp":             "at character 14",
		"80:" + strings.Repeat("a", 64): "is not a name",
	} {
		_, err := ParseHostPort(spec)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "write PORT")) {
			t.Errorf("%q: %v, want %q", spec, err, want)
		}
	}
}
