//go:build linux

package server

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEtcEnvironment(t *testing.T) {
	got := parseEnvironment(`# a comment
LANG=C.UTF-8
export EDITOR="vim -u none" # another one
 PAGER = 'less'
ODD="open
=nothing
EMPTY=
no setting
`)
	want := []string{"LANG=C.UTF-8", "EDITOR=vim -u none", "PAGER=less", `ODD="open`, "EMPTY="}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnvironmentHasTheUsersBus(t *testing.T) {
	dir := t.TempDir()
	if got := getenv(environ(User{}, dir, nil), "DBUS_SESSION_BUS_ADDRESS"); got != "" {
		t.Errorf("without a bus its address is %q", got)
	}
	write(t, dir+"/bus", "")
	if got := getenv(environ(User{}, dir, nil), "DBUS_SESSION_BUS_ADDRESS"); got != "unix:path="+dir+"/bus" {
		t.Errorf("the address of the bus is %q", got)
	}
}

func TestLocalesThatTheGuestLacks(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/usr/lib/locale/de_AT.utf8", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/usr/lib/locale/locale-archive", localeArchive("en_US.utf8", "en_US", "ca_ES.utf8@valencia"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := knownLocales(root, []string{
		"LANG=en_GB.UTF-8", "LC_ALL=sv_SE.UTF-8", "LC_TIME=en_US.UTF-8", "LC_PAPER=de_AT.utf8", "LC_NAME=ca_ES.UTF-8@valencia",
		"LC_NUMERIC=C.UTF-8", "LC_CTYPE=UTF-8", "LC_COLLATE=C", "LC_MONETARY=POSIX", "LC_MESSAGES=", "LC_ADDRESS=removed",
		"LC_TELEPHONE=../../../etc", "LANGUAGE=sv", "OTHER=xx_YY.UTF-8",
	})
	want := []string{
		"LANG=C.UTF-8", "LC_TIME=en_US.UTF-8", "LC_PAPER=de_AT.utf8", "LC_NAME=ca_ES.UTF-8@valencia",
		"LC_NUMERIC=C.UTF-8", "LC_COLLATE=C", "LC_MONETARY=POSIX", "LC_MESSAGES=", "LANGUAGE=sv", "OTHER=xx_YY.UTF-8",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.WriteFile(root+"/usr/lib/locale/locale-archive", []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	if hasLocale(root, "en_US.UTF-8") {
		t.Error("a damaged archive has a locale")
	}
}

// localeArchive is a file of localedef(1) with the names, a free entry and one
// that was removed.
func localeArchive(names ...string) []byte {
	const head, entry = 14 * 4, 12
	var table, text bytes.Buffer
	table.Write(make([]byte, entry))
	place := uint32(head + entry*(len(names)+2))
	for _, name := range append(names, "removed") {
		locale := uint32(4711)
		if name == "removed" {
			locale = 0
		}
		table.Write(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(
			binary.NativeEndian.AppendUint32(nil, 1), place+uint32(text.Len())), locale))
		text.WriteString(name + "\x00")
	}
	header := make([]byte, head)
	for i, word := range []uint32{0xde020109, 1, head, uint32(len(names)), uint32(len(names) + 2), place} {
		binary.NativeEndian.PutUint32(header[4*i:], word)
	}
	return slices.Concat(header, table.Bytes(), text.Bytes())
}

func TestTerminalsThatTheGuestDoesNotKnow(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, file := range []string{dir + "/x/xterm-256color", dir + "/s/screen", other + "/66/foot", dir + "/d/dumb"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, file, "")
	}
	dirs := []string{"/no/such", dir, other}
	for name, want := range map[string]string{
		"xterm-256color": "xterm-256color", "dumb": "dumb", "foot": "foot",
		"xterm-ghostty": "xterm-256color", "xterm-kitty": "xterm-256color", "alacritty": "xterm-256color", "wezterm": "xterm-256color",
		"tmux-256color": "screen", "screen.xterm-256color": "screen", "../x/xterm-256color": "xterm-256color", "": "xterm-256color",
	} {
		if got := knownTerm(name, dirs); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
	if got := knownTerm("xterm-kitty", []string{"/no/such"}); got != "xterm-kitty" {
		t.Errorf("without any descriptions it becomes %q", got)
	}
	user := User{Home: "/home/agent"}
	got := terminfoDirs(user, []string{"TERMINFO=/own", "TERMINFO_DIRS=/a::relative:/b"})
	if want := []string{"/home/agent/.terminfo", "/own", "/a", "/b", "/etc/terminfo"}; !slices.Equal(got[:5], want) {
		t.Errorf("terminals are looked for in %q first, want %q", got[:5], want)
	}
}
