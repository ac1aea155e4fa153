package workspace

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// guest is one that says what it is told to.
type guest struct {
	entries  []agent.WorkspaceEntry
	contents map[string]string
	kept     []string
	restored []string
	reading  func() // while a file is read
}

func (g *guest) List(_ context.Context, visit func(agent.WorkspaceEntry) error) error {
	for _, e := range g.entries {
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

func (g *guest) Read(_ context.Context, path string, to io.Writer) error {
	if g.reading != nil {
		g.reading()
	}
	_, err := io.WriteString(to, g.contents[path])
	return err
}

func (g *guest) Sum(_ context.Context, path string) ([32]byte, error) {
	if _, ok := g.contents[path]; !ok {
		return [32]byte{}, &agent.WorkspaceError{Message: "no such file"}
	}
	return sha256.Sum256([]byte(g.contents[path])), nil
}

func (g *guest) Keep(_ context.Context, path string) error {
	g.kept = append(g.kept, path)
	return nil
}

func (g *guest) Restore(_ context.Context, path string) error {
	g.restored = append(g.restored, path)
	return nil
}

func (g *guest) Refresh(context.Context) error { return nil }

// has is a guest with files of that content, links to what follows "->", and without what is "gone". A name with a slash
// at its end is a directory, which is whole if that is its content.
func has(files map[string]string) *guest {
	g := &guest{contents: make(map[string]string)}
	for _, name := range slices.SortedFunc(maps.Keys(files), comparePaths) {
		content := files[name]
		target, link := strings.CutPrefix(content, "->")
		e := agent.WorkspaceEntry{Path: strings.TrimSuffix(name, "/"), Mode: 0o644, Size: int64(len(content))}
		switch {
		case content == "gone":
			e = agent.WorkspaceEntry{Path: name, Removed: true}
		case strings.HasSuffix(name, "/"):
			e = agent.WorkspaceEntry{Path: e.Path, Mode: fs.ModeDir | 0o755, Whole: content != "", Moved: content == "moved"}
		case link:
			e = agent.WorkspaceEntry{Path: name, Mode: fs.ModeSymlink | 0o777, Link: target}
		default:
			g.contents[name] = content
		}
		g.entries = append(g.entries, e)
	}
	return g
}

// project is a share of a directory with these files, since now.
func project(t *testing.T, g Guest, files map[string]string) (*Share, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	resolved, err := hostdir.Resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := hostdir.Open(resolved)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	// Later than what the kernel's coarse clock says of the files.
	return &Share{Guest: g, Host: d, Record: &Record{Since: time.Now().Add(time.Second)}}, resolved
}

// later makes the record such that what is written from now on has changed since.
func later(s *Share) { s.Record.Since = time.Now().Add(-time.Hour) }

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func changes(t *testing.T, s *Share) []Change {
	t.Helper()
	all, err := s.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// words are the changes as "kind path".
func words(changes []Change) []string {
	var list []string
	for _, c := range changes {
		list = append(list, fmt.Sprintf("%s %s", c.Kind, c.Path))
	}
	return list
}

// apply applies all, and returns what became of each that was not.
func apply(t *testing.T, s *Share, overwrite bool) map[string]error {
	t.Helper()
	all := changes(t, s)
	applier, failed := s.Apply(all), make(map[string]error)
	for _, c := range all {
		p, err := s.Fetch(t.Context(), c)
		if err == nil {
			err = errors.Join(applier.Commit(t.Context(), p, overwrite), p.Close())
		}
		if err != nil {
			failed[c.Path] = err
		}
	}
	if err := s.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	return failed
}

// look returns all that is in a directory: contents of files, "->" and targets of links, "/" of directories.
func look(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		switch {
		case e.IsDir():
			got[rel] = "/"
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(name)
			got[rel] = "->" + target
			return err
		default:
			text, err := os.ReadFile(name)
			got[rel] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatTheGuestHasChangedIsFoundAndApplied(t *testing.T) {
	g := has(map[string]string{
		"changed": "new", "same": "same", "new/": "whole", "new/in/": "whole", "new/in/file": "1", "gone": "gone", "old": "gone", "never": "gone",
		"dir/": "", "dir/file": "2", "link": "->dir/file", "replaced/": "whole", "replaced/kept": "kept", "becomesDir/": "whole",
		"becomesDir/x": "x", "becomesFile": "file",
	})
	s, dir := project(t, g, map[string]string{
		"changed": "old", "same": "same", "gone": "", "old/a": "", "old/b/c": "", "dir/file": "1", "dir/stays": "", "replaced/kept": "kept",
		"replaced/dropped/x": "", "becomesDir": "", "becomesFile/y": "", "untouched": "",
	})
	got := words(changes(t, s))
	want := []string{
		"removed becomesDir", "added becomesDir", "added becomesDir/x", "removed becomesFile/y", "removed becomesFile", "added becomesFile",
		"modified changed", "modified dir/file", "added link", "added new", "added new/in", "added new/in/file",
		"removed gone", "removed old/a", "removed old/b/c", "removed old/b", "removed old", "removed replaced/dropped/x", "removed replaced/dropped",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	if failed := apply(t, s, false); len(failed) > 0 {
		t.Error(failed)
	}
	after := look(t, dir)
	if w := map[string]string{
		"changed": "new", "same": "same", "new": "/", "new/in": "/", "new/in/file": "1", "dir": "/", "dir/file": "2", "dir/stays": "",
		"link": "->dir/file", "replaced": "/", "replaced/kept": "kept", "becomesDir": "/", "becomesDir/x": "x", "becomesFile": "file", "untouched": "",
	}; !maps.Equal(after, w) {
		t.Errorf("got  %q\nwant %q", after, w)
	}
	if again := words(changes(t, s)); len(again) > 0 {
		t.Errorf("differs still: %q", again)
	}
}

func TestAFileIsMadeWithTheDirectoriesThatLeadToIt(t *testing.T) {
	s, dir := project(t, has(map[string]string{"a/": "whole", "a/b/": "whole", "a/b/c": "c", "a/other": ""}), nil)
	all := changes(t, s)
	i := slices.IndexFunc(all, func(c Change) bool { return c.Path == "a/b/c" })
	p, err := s.Fetch(t.Context(), all[i])
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := s.Apply(all).Commit(t.Context(), p, false); err != nil {
		t.Fatal(err)
	}
	if got := look(t, dir); !maps.Equal(got, map[string]string{"a": "/", "a/b": "/", "a/b/c": "c"}) {
		t.Errorf("got %q", got)
	}
}

func TestWhatNeverComesToTheHost(t *testing.T) {
	g := has(map[string]string{
		"absolute": "->/etc/passwd", "up": "->../x", "deep/": "", "deep/up": "->../../x", "deep/in": "->../x", "around": "->a/../../x", "fine": "->./a/b", "here": "->.", "through": "->here/../x",
	})
	for name, mode := range map[string]fs.FileMode{"zpipe": fs.ModeNamedPipe, "zsock": fs.ModeSocket, "zdev": fs.ModeDevice, "zchar": fs.ModeCharDevice | fs.ModeDevice} {
		g.entries = append(g.entries, agent.WorkspaceEntry{Path: name, Mode: mode | 0o666})
	}
	g.entries = append(g.entries, agent.WorkspaceEntry{Path: "zz", Mode: 0o777 | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky, Size: 1})
	g.contents["zz"] = "z"
	s, dir := project(t, g, nil)
	failed := apply(t, s, true)
	for _, name := range []string{"absolute", "up", "deep/up", "around", "through", "zpipe", "zsock", "zdev", "zchar"} {
		if _, ok := errors.AsType[*RefusedError](failed[name]); !ok {
			t.Errorf("%s: %v", name, failed[name])
		}
		delete(failed, name)
	}
	if len(failed) > 0 {
		t.Error(failed)
	}
	if got := look(t, dir); !maps.Equal(got, map[string]string{"deep": "/", "deep/in": "->../x", "fine": "->./a/b", "here": "->.", "zz": "z"}) {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "zz")); err != nil || info.Mode() != 0o775 {
		t.Errorf("set-id bits, or the right of all to write, came over: %v, %v", info.Mode(), err)
	}
}

func TestRulesRefuseAtTheHost(t *testing.T) {
	set, err := rules.New(rules.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	g := has(map[string]string{
		".git/": "", ".git/hooks/": "", ".git/hooks/pre-commit": "#!", ".git/config": "[core]\n\tfsmonitor = evil\n", "nested/": "whole",
		"nested/.git/": "whole", "nested/.git/hooks/": "whole", "nested/.git/hooks/x": "#!", "fine": "fine",
	})
	s, dir := project(t, g, map[string]string{".git/config": "[core]\n\tbare = false\n"})
	s.Judge = set.Judge
	failed := apply(t, s, true)
	for _, name := range []string{".git/hooks/pre-commit", ".git/config", "nested/.git/hooks/x"} {
		if refused, ok := errors.AsType[*RefusedError](failed[name]); !ok || refused.Rule == "" {
			t.Errorf("%s: %v", name, failed[name])
		}
	}
	got := look(t, dir)
	if got["fine"] != "fine" || got[".git/config"] != "[core]\n\tbare = false\n" {
		t.Errorf("got %q", got)
	}
	for name := range got {
		if path.Base(path.Dir(name)) == "hooks" {
			t.Errorf("%s is on the host", name)
		}
	}
}

func TestWhatHasChangedOnTheHostIsAConflict(t *testing.T) {
	g := has(map[string]string{"both": "guest", "gone": "gone", "dir/": "whole", "dir/x": "guest"})
	s, dir := project(t, g, map[string]string{"both": "host", "gone": "host", "dir/x": "host"})
	later(s)
	write(t, filepath.Join(dir, "dir/mine"), "since") // of which the guest does not know, and so did not remove it
	failed := apply(t, s, false)
	for _, name := range []string{"both", "gone", "dir/x"} {
		if _, ok := errors.AsType[*ConflictError](failed[name]); !ok {
			t.Errorf("%s: %v", name, failed[name])
		}
	}
	want := map[string]string{"both": "host", "gone": "host", "dir": "/", "dir/x": "host", "dir/mine": "since"}
	if got := look(t, dir); !maps.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
	if failed := apply(t, s, true); len(failed) > 0 {
		t.Errorf("could not be overwritten: %v", failed)
	}
	want = map[string]string{"both": "guest", "dir": "/", "dir/x": "guest", "dir/mine": "since"}
	if got := look(t, dir); !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	// Applied, a file has changed on the host by that, which is no conflict; changed again by the user, it is one only
	// once the guest has changed it too.
	g.contents["both"] = "GUEST"
	if all := changes(t, s); len(all) != 1 || all[0].Conflict != "" {
		t.Errorf("got %+v", all)
	}
	g.contents["both"] = "guest"
	write(t, filepath.Join(dir, "both"), "my own")
	if all := changes(t, s); len(all) != 0 {
		t.Errorf("what the user has changed counts as the guest's change: %+v", all)
	}
	g.contents["both"] = "GUEST"
	if all := changes(t, s); len(all) != 0 && all[0].Conflict == "" {
		t.Errorf("no conflict: %+v", all)
	}
}

// What changes after the comparison, even after the content was fetched, is neither lost nor overwritten.
func TestChangesOnTheHostInTheLastMoment(t *testing.T) {
	for name, meddle := range map[string]func(t *testing.T, dir string){
		"written": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "d/f"), "mine, longer") },
		"replaced": func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "d/f"))
			write(t, filepath.Join(dir, "d/f"), "mine")
		},
		"a link": func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "d/f"))
			if err := os.Symlink("../canary", filepath.Join(dir, "d/f")); err != nil {
				t.Error(err)
			}
		},
		"its directory is a link": func(t *testing.T, dir string) {
			if err := errors.Join(os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")), os.Symlink("e", filepath.Join(dir, "d"))); err != nil {
				t.Error(err)
			}
		},
		"its directory leads out": func(t *testing.T, dir string) {
			out := t.TempDir()
			write(t, filepath.Join(out, "f"), "old")
			if err := errors.Join(os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "e")), os.Symlink(out, filepath.Join(dir, "d"))); err != nil {
				t.Error(err)
			}
			t.Cleanup(func() {
				if got := look(t, out); got["f"] != "old" || len(got) != 1 {
					t.Errorf("outside there is %q", got)
				}
			})
		},
	} {
		for kind, content := range map[string]string{"modified": "new", "removed": "gone"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				g := has(map[string]string{"d/": "", "d/f": content})
				s, dir := project(t, g, map[string]string{"d/f": "old", "canary": "canary"})
				all := changes(t, s)
				if len(all) != 1 {
					t.Fatalf("got %q", words(all))
				}
				p, err := s.Fetch(t.Context(), all[0])
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				meddle(t, dir)
				before := look(t, dir)
				err = s.Apply(all).Commit(t.Context(), p, true)
				if _, ok := errors.AsType[*ConflictError](err); !ok {
					t.Errorf("got %v", err)
				}
				if after := look(t, dir); !maps.Equal(before, after) {
					t.Errorf("before %q\nafter %q", before, after)
				}
			})
		}
	}
}

func TestSomethingNewInTheWay(t *testing.T) {
	g := has(map[string]string{"f": "guest", "d/": "whole", "old": "gone"})
	s, dir := project(t, g, map[string]string{"old/x": ""})
	all := changes(t, s)
	write(t, filepath.Join(dir, "f"), "mine")
	write(t, filepath.Join(dir, "d"), "mine")
	write(t, filepath.Join(dir, "old/new"), "mine")
	applier := s.Apply(all)
	for _, c := range all {
		p, err := s.Fetch(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		err = applier.Commit(t.Context(), p, true)
		if _, ok := errors.AsType[*ConflictError](err); ok != (c.Path != "old/x") {
			t.Errorf("%s: %v", c.Path, err)
		}
		p.Close()
	}
	if got := look(t, dir); !maps.Equal(got, map[string]string{"f": "mine", "d": "mine", "old": "/", "old/new": "mine"}) {
		t.Errorf("got %q", got)
	}
}

func TestAGuestThatSendsMoreThanItAnnounced(t *testing.T) {
	g := has(map[string]string{"f": "short"})
	g.contents["f"] = strings.Repeat("x", 1000)
	s, dir := project(t, g, nil)
	failed := apply(t, s, true)
	if failed["f"] == nil || len(look(t, dir)) != 0 {
		t.Errorf("got %v and %q", failed, look(t, dir))
	}
	if _, err := s.Look(t.Context(), changes(t, s)[0]); err == nil {
		t.Error("it is shown")
	}
}

func TestAHugeFileIsRefusedWhereThereIsNoRoom(t *testing.T) {
	g := has(map[string]string{"f": ""})
	g.entries[0].Size = 1 << 60
	g.reading = func() { t.Error("it is fetched") }
	s, dir := project(t, g, nil)
	if failed := apply(t, s, true); failed["f"] == nil || !strings.Contains(failed["f"].Error(), "no room") || len(look(t, dir)) != 0 {
		t.Errorf("got %v", failed)
	}
}

func TestHolesStayHoles(t *testing.T) {
	content := strings.Repeat("\x00", 1<<20) + "end" + strings.Repeat("\x00", 1<<20)
	s, dir := project(t, has(map[string]string{"f": content}), nil)
	if failed := apply(t, s, true); len(failed) > 0 {
		t.Fatal(failed)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil {
		t.Fatal(err)
	}
	if got := look(t, dir)["f"]; got != content || st.Blocks*512 > 1<<19 {
		t.Errorf("%d bytes in %d blocks", len(got), st.Blocks)
	}
}

func TestManyFiles(t *testing.T) {
	const many, applied = 100_000, 2_000
	files := map[string]string{"d/": "whole"}
	for i := range many {
		files[fmt.Sprintf("d/%05d", i)] = "x"
	}
	s, dir := project(t, has(files), map[string]string{"d/00000": "old"})
	before := heap()
	all := changes(t, s)
	if len(all) != many {
		t.Fatalf("%d changes", len(all))
	}
	if got := int64(heap()-before) / many; got > 1024 {
		t.Errorf("each change takes %d bytes", got)
	}
	if len(look(t, dir)) != 2 {
		t.Error("a comparison changes the host")
	}
	applier := s.Apply(all)
	before = heap()
	for _, c := range all[:applied] {
		p, err := s.Fetch(t.Context(), c)
		if err == nil {
			err = errors.Join(applier.Commit(t.Context(), p, true), p.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := int64(heap()-before) / applied; got > 1024 {
		t.Errorf("each change that was applied takes %d bytes", got)
	}
	if got := len(look(t, dir)); got != 1+applied {
		t.Errorf("there are %d files and directories, want %d", got, 1+applied)
	}
}

// heap is what is reachable, in bytes.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestWhatTheGuestHasRenamedIsKeptBeforeItGoes(t *testing.T) {
	g := has(map[string]string{"new/": "moved", "new/sub/": "moved", "new/x": "x", "old": "gone"})
	s, _ := project(t, g, map[string]string{"old/x": "x"})
	if failed := apply(t, s, false); len(failed) > 0 {
		t.Fatal(failed)
	}
	if !slices.Equal(g.kept, []string{"new"}) {
		t.Errorf("kept %q", g.kept)
	}
}

func TestDiscarded(t *testing.T) {
	g := has(map[string]string{"a": "guest", "b": "gone", "new/": "whole", "new/x": "", "newer": ""})
	s, dir := project(t, g, map[string]string{"a": "host", "b/c": ""})
	if err := s.Discard(t.Context(), changes(t, s)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "new", "newer"}; !slices.Equal(g.restored, want) {
		t.Errorf("restored %q, want %q", g.restored, want)
	}
	// The guest has the old content still when the user goes on.
	g.entries, g.contents["a"] = g.entries[:1], "host"
	g.entries[0].Size = 4
	write(t, filepath.Join(dir, "a"), "host, and more")
	later(s)
	if got := words(changes(t, s)); len(got) > 0 {
		t.Errorf("the user's change counts as the guest's: %q", got)
	}
}

func TestMountPointsOfOtherSharesAreNoChanges(t *testing.T) {
	s, _ := project(t, has(map[string]string{"sub/": "whole", "sub/share/": "whole", "other/": "whole"}), nil)
	s.Mounted = map[string]bool{"sub": true, "sub/share": true}
	if got := words(changes(t, s)); !slices.Equal(got, []string{"added other"}) {
		t.Errorf("got %q", got)
	}
}

func TestAFileThatVanishesWhileItIsCompared(t *testing.T) {
	g := has(map[string]string{"a": "1", "b": "2"})
	delete(g.contents, "a")
	s, _ := project(t, g, map[string]string{"a": "x", "b": "y"})
	if got := words(changes(t, s)); !slices.Equal(got, []string{"modified a", "modified b"}) {
		t.Errorf("got %q", got)
	}
}

func TestText(t *testing.T) {
	g := has(map[string]string{
		"text": "one\nTWO\nthree\n", "bin": "a\x00b", "gone": "gone", "a\nb\x1b[31m": "x\n", "link": "->text", "large": strings.Repeat("x\n", MaxText),
		"sub/.git/objects/3f/a1": "x\x01KJ", "objects/x": "y\n",
	})
	s, _ := project(t, g, map[string]string{"text": "one\ntwo\nthree\n", "gone": "bye\n"})
	for _, c := range changes(t, s) {
		p, err := s.Look(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.Text(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"text":                   "--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n",
			"sub/.git/objects/3f/a1": "file sub/.git/objects/3f/a1: added, 0 to 4 bytes, not shown as text\n",
			"objects/x":              "--- /dev/null\n+++ b/objects/x\n@@ -0,0 +1,1 @@\n+y\n",
			"bin":                    "file bin: added, 0 to 3 bytes, not shown as text\n",
			"gone":                   "--- a/gone\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-bye\n",
			"link":                   "--- /dev/null\n+++ b/link\n@@ -0,0 +1,1 @@\n+text\n\\ No newline at end of file\n",
			"large":                  "file large: added, 0 to 2097152 bytes, not shown as text\n",

			"a\nb\x1b[31m": "--- /dev/null\n+++ \"b/a\\nb\\x1b[31m\"\n@@ -0,0 +1,1 @@\n+x\n",
		}[c.Path]
		if text.Diff != want {
			t.Errorf("%q:\n%s\nwant:\n%s", c.Path, text.Diff, want)
		}
		if c.Path == "text" && (text.Added != 1 || text.Removed != 1) {
			t.Errorf("%d lines added, %d removed", text.Added, text.Removed)
		}
	}
}

func TestWhatBothSidesHaveChangedIsMerged(t *testing.T) {
	const base = "1\n2\n3\n4\n5\n6\n7\n"
	begun := map[string]string{"apart": base, "same": base, "binary": "a\x00", "unknown": base, "rule": base}
	here := map[string]string{"apart": "ONE\n2\n3\n4\n5\n6\n7\n", "same": "ONE\n2\n3\n4\n5\n6\n7\n", "binary": "b\x00", "unknown": "x", "rule": "ONE\n2\n3\n4\n5\n6\n7\n"}
	g := has(map[string]string{"apart": base + "8\n", "same": "one\n2\n3\n4\n5\n6\n7\n", "binary": "c\x00", "unknown": "y", "rule": base + "8\n"})
	s, dir := project(t, g, here)
	later(s)
	s.Base = func(_ context.Context, path string) ([]byte, error) {
		if path == "unknown" {
			return nil, errors.New("nobody knows")
		}
		return []byte(begun[path]), nil
	}
	merge := func(name string) (*Pending, *Merge) {
		t.Helper()
		for _, c := range changes(t, s) {
			if c.Path != name {
				continue
			}
			p, err := s.Fetch(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			m, err := p.Merge(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return p, m
		}
		t.Fatalf("%s is no change", name)
		return nil, nil
	}
	for _, name := range []string{"binary", "unknown"} {
		if _, m := merge(name); m != nil {
			t.Errorf("%s was merged to %q", name, m.Content)
		}
	}
	p, m := merge("same")
	if m == nil || m.Conflicts != 1 || !strings.HasPrefix(string(m.Content), "<<<<<<< here\nONE\n=======\none\n>>>>>>> sandbox\n2\n") {
		t.Errorf("the same line: %+v", m)
	}
	if err := p.commit(t.Context(), false); err == nil {
		t.Error("a conflict was applied")
	}
	const both = "ONE\n2\n3\n4\n5\n6\n7\n8\n"
	p, m = merge("apart")
	if m == nil || m.Conflicts != 0 || string(m.Content) != both {
		t.Fatalf("different lines: %+v", m)
	}
	p.Take(m)
	text, err := p.Text(t.Context())
	if err != nil || text.Added != 1 || text.Removed != 0 || !strings.Contains(text.Diff, "+8\n") {
		t.Errorf("what is shown is %+v, %v", text, err)
	}
	if err := p.commit(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "apart")); string(got) != both {
		t.Errorf("there is %q", got)
	}
	// It is no difference any more. When the guest goes on with what it has, that is merged too, and replaces nothing.
	if got := words(changes(t, s)); slices.Contains(got, "modified apart") {
		t.Errorf("still there: %q", got)
	}
	g.contents["apart"] = strings.Replace(base, "4", "FOUR", 1) + "8\n"
	g.entries[slices.IndexFunc(g.entries, func(e agent.WorkspaceEntry) bool { return e.Path == "apart" })].Size += 3
	if _, m = merge("apart"); m == nil || m.Conflicts != 0 || string(m.Content) != strings.Replace(both, "4", "FOUR", 1) {
		t.Errorf("after the merge: %+v", m)
	}
	// Rules are asked about what is written, and the host's last word counts.
	s.Judge = func(a rules.Access) rules.Verdict {
		content, err := a.Content()
		return rules.Verdict{Refused: err != nil || string(content) == both, Rule: "rule"}
	}
	p, m = merge("rule")
	p.Take(m)
	if err := p.commit(t.Context(), true); err == nil || p.Refused == nil {
		t.Errorf("what a rule refuses was merged: %v", err)
	}
	s.Judge = nil
	p, m = merge("rule")
	p.Take(m)
	write(t, filepath.Join(dir, "rule"), "in this moment\n")
	if err := p.commit(t.Context(), true); err == nil {
		t.Error("what has changed after the look was replaced")
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "rule")); string(got) != "in this moment\n" {
		t.Errorf("there is %q", got)
	}
}
