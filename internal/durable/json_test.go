package durable

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestFileIsRewrittenInPlaceOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	type state struct{ Status, Reason string }
	long := state{Status: "running", Reason: strings.Repeat("x", 1000)}
	if err := WriteJSON(path, long); err != nil {
		t.Fatal(err)
	}
	if err := overwrite(path, []byte(`{"status":"stopped"}`)); err != nil {
		t.Fatal(err)
	}
	var st state
	if err := ReadJSON(path, &st); err != nil || st.Status != "stopped" || st.Reason != "" {
		t.Errorf("state %+v, %v", st, err)
	}
	if err := overwrite(path, make([]byte, 1<<20)); err == nil {
		t.Error("it took more room than the file has")
	}
	if err := ReadJSON(path, &st); err != nil {
		t.Errorf("the failed attempt damaged it: %v", err)
	}
}
