package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const oneLine = `# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/keys/vendor.gpg] https://vendor.example/apt bookworm main
deb http://mirror.example/debian/ bookworm main contrib # local
deb-src http://mirror.example/debian/ bookworm main
deb http://mirror.example/debian/ bookworm-updates main
deb http://mirror.example/debian-security bookworm-security main
deb broken
deb [unfinished http://x y z
`

const deb822 = `# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
# in the middle
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
`

func TestParseOneLine(t *testing.T) {
	got := parseOneLine(oneLine)
	want := []Source{
		{URIs: []string{"https://vendor.example/apt"}, Suites: []string{"bookworm"}, Components: []string{"main"}, SignedBy: "/keys/vendor.gpg"},
		{URIs: []string{"http://mirror.example/debian/"}, Suites: []string{"bookworm"}, Components: []string{"main", "contrib"}},
		{URIs: []string{"http://mirror.example/debian/"}, Suites: []string{"bookworm-updates"}, Components: []string{"main"}},
		{URIs: []string{"http://mirror.example/debian-security"}, Suites: []string{"bookworm-security"}, Components: []string{"main"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseDeb822(t *testing.T) {
	got := parseDeb822(deb822)
	if len(got) != 2 {
		t.Fatalf("got %d sources, want the 2 that are enabled and binary: %+v", len(got), got)
	}
	want := Source{
		URIs: []string{"http://mirror.example/debian"}, Suites: []string{"bookworm", "bookworm-updates"},
		Components: []string{"main", "contrib"}, SignedBy: "/usr/share/keyrings/debian-archive-keyring.gpg",
	}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("got  %+v\nwant %+v", got[0], want)
	}
}

func TestDeb822KeepsAnEmbeddedKey(t *testing.T) {
	security := parseDeb822(deb822)[1]
	again := parseDeb822(security.Deb822())
	if len(again) != 1 || !reflect.DeepEqual(again[0], security) {
		t.Errorf("%+v was written as\n%s\nand read back as %+v", security, security.Deb822(), again)
	}
	if !strings.Contains(security.Deb822(), "\n .\n abc\n") {
		t.Errorf("the key's lines must stay indented:\n%s", security.Deb822())
	}
}

func TestMirrorIsTheDistributionsOwn(t *testing.T) {
	release := mustRelease(t, debian12)
	for name, sources := range map[string][]Source{"one-line": parseOneLine(oneLine), "deb822": parseDeb822(deb822)} {
		got, err := mirror(sources, release)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !strings.HasPrefix(got.URIs[0], "http://mirror.example/debian") {
			t.Errorf("%s: got %v, and not the entry that has the updates too", name, got.URIs)
		}
	}
	if _, err := mirror(parseDeb822(deb822), mustRelease(t, debian13)); err == nil || !strings.Contains(err.Error(), "trixie") {
		t.Errorf("without an entry for the release the error should name its suite: %v", err)
	}
}

func TestWithSuiteTakesTheArchiveAndNoVendor(t *testing.T) {
	private, err := withSuite(parseOneLine(oneLine), mustRelease(t, debian12), "bookworm-backports")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, source := range private {
		got = append(got, source.URIs[0]+" "+strings.Join(source.Suites, " "))
	}
	want := []string{
		"http://mirror.example/debian/ bookworm",
		"http://mirror.example/debian/ bookworm-backports",
		"http://mirror.example/debian/ bookworm-updates",
		"http://mirror.example/debian-security bookworm-security",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestSiblingIsAlwaysSigned(t *testing.T) {
	got, err := sibling(parseOneLine(oneLine), mustRelease(t, debian12), "trixie", []string{"main"}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := "Types: deb\nURIs: http://mirror.example/debian/\nSuites: trixie\nComponents: main\nArchitectures: amd64\n" +
		"Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
	if got.Deb822() != want {
		t.Errorf("got\n%s\nwant\n%s", got.Deb822(), want)
	}
}

func TestReadSourcesReadsBothFormats(t *testing.T) {
	etc := t.TempDir()
	if err := os.Mkdir(filepath.Join(etc, "sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sources.list":                "deb http://a.example/debian bookworm main\n",
		"sources.list.d/b.list":       "deb http://b.example/debian bookworm main\n",
		"sources.list.d/c.sources":    "Types: deb\nURIs: http://c.example/debian\nSuites: bookworm\nComponents: main\n",
		"sources.list.d/d.list.saved": "deb http://d.example/debian bookworm main\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sources, err := readSources(etc)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, source := range sources {
		got = append(got, source.URIs...)
	}
	want := []string{"http://a.example/debian", "http://b.example/debian", "http://c.example/debian"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
