package nix

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	storeDir = "/nix/store/mxlz8waiyfzi2ib1mxhv8h331s6wljmh-"
	otherDir = "/nix/store/y64jacxcwrfjdcym4bfq2hl2ll7s00xv-"
)

// readLog reads events, each the JSON of one, and returns the notes.
func readLog(events ...string) (*log, []string) {
	var notes []string
	l := newLog(func(note string) { notes = append(notes, note) })
	l.read(strings.NewReader("@nix " + strings.Join(events, "\n@nix ") + "\n"))
	return l, notes
}

func building(id int, drv string) string {
	return fmt.Sprintf(`{"action":"start","fields":["%s","",1,1],"id":%d,"level":3,"parent":0,"text":"building '%[1]s'","type":105}`, drv, id)
}

func says(id int, line string) string {
	return fmt.Sprintf(`{"action":"result","fields":[%s],"id":%d,"type":101}`, quoted(line), id)
}

func fails(text string) string {
	return fmt.Sprintf(`{"action":"msg","column":null,"level":0,"msg":%s}`, quoted(text))
}

func quoted(text string) string {
	data, _ := json.Marshal(text) // a string always can be
	return string(data)
}

func TestProgressIsNoted(t *testing.T) {
	_, notes := readLog(
		`{"action":"start","id":1,"level":4,"parent":0,"text":"evaluating derivation 'path:/x#image'","type":0}`,
		`{"action":"start","id":2,"level":4,"parent":0,"text":"copying '\"/x\"' to the store","type":0}`,
		`{"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m no answer; retrying in 255 ms"}`,
		`{"action":"start","id":9223372036854775809,"level":0,"parent":0,"text":"","type":104}`,
		`{"action":"start","id":4,"level":0,"parent":0,"text":"","type":103}`,
		`{"action":"result","fields":[0,2,0,0],"id":9223372036854775809,"type":105}`,
		`{"action":"result","fields":[0,7,0,0],"id":4,"type":105}`,
		`{"action":"start","fields":["`+storeDir+`zsh-5.9","there"],"id":5,"level":4,"parent":0,"text":"","type":108}`,
		building(6, storeDir+"dep-1.2.drv"),
		building(7, otherDir+"image.drv"),
		building(8, otherDir+"unexpected.drv"),
	)
	want := []string{
		"evaluating", "warning: no answer", "fetching zsh-5.9 (1 of 7)",
		"building dep-1.2 (1 of 2)", "building image (2 of 2)", "building unexpected (3 of 3)",
	}
	if !slices.Equal(notes, want) {
		t.Errorf("got  %q\nwant %q", notes, want)
	}
}

func TestAFailureIsExplained(t *testing.T) {
	status := errors.New("exit status 1")
	failing, dependent := storeDir+"failing-1.drv", otherDir+"dependent.drv"
	lines := []string{building(1, failing), building(2, otherDir+"innocent.drv"), says(2, "interrupted")}
	for i := range 2 * logLines {
		lines = append(lines, says(1, fmt.Sprintf("line %d", i)))
	}
	lines = append(lines, says(1, "\x1b[31mwrong\x1b[0m\a \x1b]0;title\a\x1b[2Jend"))
	for _, c := range []struct {
		name        string
		events      []string
		wants, nots []string
	}{
		{
			"a builder failed",
			append(slices.Clip(lines), fails("error: builder for '\x1b[35;1m"+failing+"\x1b[0m' failed with exit code 3"), fails("error: 1 dependencies of derivation '"+dependent+"' failed to build")),
			[]string{"derivation failing-1 failed: builder for '" + failing + "' failed with exit code 3\n", "  line 39\n  wrong end\n", "nix --extra-experimental-features nix-command log " + failing},
			[]string{"line 20\n", "interrupted", "\x1b", "\a"},
		},
		{
			"a builder failed, in the words of newer versions",
			append(slices.Clip(lines), fails("error: Cannot build '"+failing+"'.\n       Reason: builder failed with exit code 3.")),
			[]string{"derivation failing-1 failed", "  wrong end\n"},
			nil,
		},
		{
			"a download is not what was expected",
			[]string{building(1, failing), says(1, "100%"), fails("error: hash mismatch in fixed-output derivation '" + failing + "':\n         specified: sha256-A\n            got:    sha256-B")},
			[]string{"hash mismatch", "got:    sha256-B", "  100%\n"},
			nil,
		},
		{
			"a builder failed in silence",
			[]string{building(1, failing), fails("error: builder for '" + failing + "' failed")},
			[]string{"(it is empty)"},
			nil,
		},
		{
			"evaluation failed",
			[]string{fails("error:\n       … while calling throw\n\n       error: out of stock")},
			[]string{"… while calling throw", "error: out of stock"},
			[]string{"error:\n", "lines before"},
		},
		{
			"evaluation failed with a long trace",
			[]string{fails("error:" + strings.Repeat("\n… while evaluating", 100) + "\nerror: out of stock")},
			[]string{"(71 lines before)", "out of stock"},
			nil,
		},
		{
			"a foreign processor",
			[]string{fails("error: a 'aarch64-linux' with features {} is required to build '" + failing + "', but I am a 'x86_64-linux'")},
			[]string{"aarch64-linux", "add a builder", "binfmt"},
			nil,
		},
		{
			"something else than events",
			[]string{`{"action":"nonsense"}`, "not JSON\nsh: no such interpreter"},
			[]string{"@nix not JSON", "sh: no such interpreter"},
			nil,
		},
		{"silence", nil, []string{"it said nothing", "exit status 1"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog(func(string) {})
			if len(c.events) > 0 {
				l, _ = readLog(c.events...)
			}
			text := l.explain(status).Error()
			for _, want := range c.wants {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in:\n%s", want, text)
				}
			}
			for _, not := range c.nots {
				if strings.Contains(text, not) {
					t.Errorf("%q is in:\n%s", not, text)
				}
			}
		})
	}
	l, _ := readLog(fails("error: flake 'x' does not provide attribute 'a' or 'b'"))
	if err := l.explain(status); !errors.Is(err, errNoOutput) {
		t.Errorf("a missing output: %v", err)
	}
}
