package api

import (
	"os"
	"strings"
	"testing"
)

func TestOnlyAPipeHasARequest(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pipe, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	theirs.Close()
	for _, f := range []*os.File{null, pipe, os.NewFile(1<<20, "absent")} {
		if _, err := ReadStart(f); err == nil || !strings.Contains(err.Error(), "started by what starts its sandbox") {
			t.Errorf("%s: %v", f.Name(), err)
		}
	}
}
