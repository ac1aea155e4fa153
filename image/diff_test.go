package image_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestCompare(t *testing.T) {
	load := func(store string, change func(m map[string]any)) *image.Image {
		img, err := image.Load(writeNamed(t, "tiny", store, change))
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	list := func(text string) (packages any) {
		if err := json.Unmarshal([]byte(text), &packages); err != nil {
			t.Fatal(err)
		}
		return packages
	}
	before := load("store", func(m map[string]any) {
		in(m, "provenance")["packages"] = list(`[
			{"name":"same","version":"1","size":5},
			{"name":"gone","version":"1"},
			{"name":"new-version","version":"1","size":5},
			{"name":"new-size","version":"1","size":5},
			{"name":"many","version":"1"}, {"name":"many","version":"2"}, {"name":"many","version":"2"}]`)
	})
	after := load("stored", func(m map[string]any) {
		in(m, "provenance")["packages"] = list(`[
			{"name":"added","version":"1","size":7},
			{"name":"many","version":"3"}, {"name":"many","version":"2"},
			{"name":"new-size","version":"1","size":6},
			{"name":"new-version","version":"2","size":5},
			{"name":"same","version":"1","size":5}]`)
		in(m, "user")["shell"] = "/bin/sh"
		in(m, "provenance")["flake"] = "x"
		m["cmdline"] = []any{"console=hvc0", "quiet"}
		delete(m, "requires")
	})
	d, err := image.Compare(before, after)
	if err != nil {
		t.Fatal(err)
	}
	if d.From != before.Ref() || d.To != after.Ref() {
		t.Errorf("from %s to %s", d.From, d.To)
	}
	d.From, d.To = "", ""
	got, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/diff.golden"
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %s\nwant (%s) %s", got, golden, want)
	}

	same, err := image.Compare(before, before)
	if err != nil || len(same.Packages)+len(same.Files)+len(same.Manifest) != 0 {
		t.Errorf("an image differs from itself: %+v, %v", same, err)
	}
}
