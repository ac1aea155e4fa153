package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// answer is a channel on which a guest has said something already.
type answer struct {
	ssh.Channel
	io.Reader
}

func (answer) Write(p []byte) (int, error)  { return len(p), nil }
func (answer) Close() error                 { return nil }
func (a answer) Read(p []byte) (int, error) { return a.Reader.Read(p) }

// told is a workspace of a guest that answers so to whatever it is asked.
func told(text []byte) *Workspace {
	return newWorkspace(&Client{done: make(chan struct{})}, "share0", answer{Reader: bytes.NewReader(text)})
}

func frame(kind byte, payload any) []byte {
	text, raw := payload.([]byte)
	if !raw {
		text, _ = json.Marshal(payload)
	}
	var b bytes.Buffer
	_ = wire.WriteFrame(&b, kind, text)
	return b.Bytes()
}

func list(entries ...wire.WorkspaceEntry) []byte {
	var all []byte
	for _, e := range entries {
		all = append(all, frame(wire.FrameEntry, e)...)
	}
	return append(all, frame(wire.FrameEnd, wire.WorkspaceEnd{})...)
}

func TestListsThatDescribeNoTree(t *testing.T) {
	const file, dir, link = 0o100644, 0o040755, 0o120777
	for name, entries := range map[string][]wire.WorkspaceEntry{
		"absolute":                  {{Path: "/etc/passwd", Mode: file}},
		"up":                        {{Path: "../x", Mode: file}},
		"up within":                 {{Path: "a", Mode: dir}, {Path: "a/..", Mode: dir}, {Path: "a/../../x", Mode: file}},
		"the share itself":          {{Path: ".", Mode: dir}},
		"nothing":                   {{Path: "", Mode: file}},
		"two slashes":               {{Path: "a", Mode: dir}, {Path: "a//b", Mode: file}},
		"a slash at the end":        {{Path: "a/", Mode: dir}},
		"NUL":                       {{Path: "a\x00b", Mode: file}},
		"a name too long":           {{Path: wire.RawString(strings.Repeat("x", 256)), Mode: file}},
		"a path too long":           {{Path: wire.RawString(strings.Repeat("x/", 3000)), Mode: file}},
		"twice":                     {{Path: "a", Mode: file}, {Path: "a", Mode: file}},
		"twice, with more between":  {{Path: "a", Mode: dir}, {Path: "a/b", Mode: file}, {Path: "c", Mode: file}, {Path: "a/d", Mode: file}},
		"without its directory":     {{Path: "a/b", Mode: file}},
		"in a file":                 {{Path: "a", Mode: file}, {Path: "a/b", Mode: file}},
		"in a link":                 {{Path: "a", Mode: link, Link: "/etc"}, {Path: "a/b", Mode: file}},
		"in something removed":      {{Path: "a"}, {Path: "a/b", Mode: file}},
		"of no size":                {{Path: "a", Mode: file, Size: -1}},
		"a file with a target":      {{Path: "a", Mode: file, Link: "b"}},
		"a link without one":        {{Path: "a", Mode: link}},
		"a target too long":         {{Path: "a", Mode: link, Link: wire.RawString(strings.Repeat("x", 5000))}},
		"a target with NUL":         {{Path: "a", Mode: link, Link: "x\x00"}},
		"a file that is whole":      {{Path: "a", Mode: file, Whole: true}},
		"moved, and not whole":      {{Path: "a", Mode: dir, Moved: true}},
		"removed, and still a link": {{Path: "a", Link: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			last := "none"
			err := told(list(entries...)).List(t.Context(), func(e WorkspaceEntry) error {
				last = e.Path
				return nil
			})
			if err == nil {
				t.Error("it is believed")
			}
			if last == string(entries[len(entries)-1].Path) && name != "twice" {
				t.Errorf("%q was passed on", last)
			}
		})
	}
}

func TestListOfATree(t *testing.T) {
	var got []WorkspaceEntry
	err := told(list(
		wire.WorkspaceEntry{Path: "a", Mode: 0o040755, Whole: true, Moved: true}, wire.WorkspaceEntry{Path: "a/\xff\n", Mode: 0o104755, Size: 3},
		wire.WorkspaceEntry{Path: "a-b"}, wire.WorkspaceEntry{Path: "b", Mode: 0o120777, Link: "../x"},
	)).List(t.Context(), func(e WorkspaceEntry) error {
		got = append(got, e)
		return nil
	})
	want := []WorkspaceEntry{
		{Path: "a", Mode: fs.ModeDir | 0o755, Whole: true, Moved: true},
		{Path: "a/\xff\n", Mode: fs.ModeSetuid | 0o755, Size: 3},
		{Path: "a-b", Removed: true},
		{Path: "b", Mode: fs.ModeSymlink | 0o777, Link: "../x"},
	}
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

func TestAnswersOfAHostileGuest(t *testing.T) {
	long := frame(wire.FrameEnd, wire.WorkspaceEnd{Error: strings.Repeat("x", 20_000)})
	if err := told(long).Keep(t.Context(), "a"); err == nil || len(err.Error()) > 2*maxText {
		t.Errorf("its words have %d bytes", len(err.Error()))
	}
	for name, text := range map[string][]byte{
		"a frame without end":   {wire.FrameEntry, 0xff, 0xff, 0xff, 0xff},
		"the end of everything": frame(wire.FrameContent, []byte("x")),
		"no JSON":               frame(wire.FrameEnd, []byte("{")),
		"an entry":              append(frame(wire.FrameEntry, wire.WorkspaceEntry{Path: "a"}), list()...),
	} {
		w := told(text)
		if err := w.Read(t.Context(), "a", io.Discard); err == nil {
			t.Errorf("%s is a file", name)
		}
		// The rest of it is no answer to what is asked next.
		if err := w.Refresh(t.Context()); err == nil {
			t.Errorf("after %s it is asked again", name)
		}
	}
	if err := told(frame(wire.FrameContent, []byte("x"))).Restore(t.Context(), "a"); err == nil {
		t.Error("content is no answer to restore")
	}
	if _, err := told(append(frame(wire.FrameContent, []byte("short")), list()...)).Sum(t.Context(), "a"); err == nil {
		t.Error("a short sum is one")
	}
	stop := errors.New("enough")
	err := told(list(wire.WorkspaceEntry{Path: "a"})).List(t.Context(), func(WorkspaceEntry) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func FuzzWorkspace(f *testing.F) {
	f.Add(list(wire.WorkspaceEntry{Path: "a", Mode: 0o040755}, wire.WorkspaceEntry{Path: "a/b", Mode: 0o100644, Size: 1}))
	f.Add(append(frame(wire.FrameContent, []byte("content")), list()...))
	f.Add(frame(wire.FrameEnd, wire.WorkspaceEnd{Error: "no"}))
	f.Fuzz(func(t *testing.T, text []byte) {
		seen := map[string]bool{}
		_ = told(text).List(context.Background(), func(e WorkspaceEntry) error {
			if CheckWorkspacePath(e.Path) != nil || !fs.ValidPath(strings.ToValidUTF8(e.Path, "x")) || e.Path == "." || seen[e.Path] || e.Size < 0 {
				t.Errorf("passed on: %+v", e)
			}
			seen[e.Path] = true
			return nil
		})
		_ = told(text).Read(context.Background(), "a", io.Discard)
	})
}
