package image_test

import (
	"encoding/json"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
)

func TestReferencesSurviveText(t *testing.T) {
	for text, want := range map[string]image.Ref{
		"":             {},
		"debian":       {Name: "debian"},
		"debian@0a1b":  {Name: "debian", Digest: "0a1b"},
		"/nix/a@b/img": {Dir: "/nix/a@b/img"},
	} {
		if got := image.ParseRef(text); got != want || got.String() != text {
			t.Errorf("%q is %+v, as text %q", text, got, got)
		}
		var back image.Ref
		data, err := json.Marshal(want)
		if err == nil {
			err = json.Unmarshal(data, &back)
		}
		if err != nil || back != want || string(data) != `"`+text+`"` {
			t.Errorf("%q became %s and %+v, %v", text, data, back, err)
		}
	}
}
