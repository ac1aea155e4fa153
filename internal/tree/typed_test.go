package tree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/tree"
)

// layout is a directory with a share in it, in which a guest has planted links.
func layout(t *testing.T) (root string, rules tree.Rules) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "out", "secret"), canary)
	write(t, filepath.Join(root, "share", "sub", "f"), "mine")
	for link, target := range map[string]string{
		"share/abs": filepath.Join(root, "out"), "share/rel": "../out", "share/file": "../out/secret", "share/inner": "sub", "share/dangling": "nothing",
		"mine": "share", "chain": "mine",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	id, err := tree.Identify(filepath.Join(root, "share"))
	if err != nil {
		t.Fatal(err)
	}
	return root, tree.Rules{Shared: map[tree.ID]string{id: "work"}}
}

func TestLinksInTypedPaths(t *testing.T) {
	root, rules := layout(t)
	t.Chdir(root)
	for typed, want := range map[string]string{ // part of the error, or empty
		"out/secret": "", "share/sub/f": "", "./share/../share/sub/f": "",
		"mine/sub/f":          "", // a link of the person's own, outside of the share
		"chain/sub/f":         "",
		"chain/../out/secret": "", // as the kernel resolves it
		"share/abs":           "write " + root + "/out",
		"share/abs/":          "write " + root + "/out/",
		"share/abs/.":         "write " + root + "/out/.",
		"share/abs/secret":    "the sandbox work can write to",
		"mine/abs/secret":     "write " + root + "/out/secret",
		"share/rel/secret":    "write out/secret",
		"share/inner/f":       "write share/sub/f",
		"share/file":          "write out/secret",
		"share/dangling":      "is a link to nothing",
		"mine":                "write share",
		"mine/":               "write share/",
		root + "/mine/.":      "write " + root + "/share/.",
		root + "/mine/sub/f":  "",
		"share/sub/f/.":       "not a directory",
		"share/none/f":        "no such file",
		"none":                "no such file",
		"":                    "empty",
	} {
		err := tree.Pack(t.Context(), io.Discard, typed, "x", tree.PackOptions{Rules: rules})
		if (want == "" && err != nil) || (want != "" && (err == nil || !strings.Contains(err.Error(), want))) {
			t.Errorf("from %q: error %v, want %q", typed, err, want)
		}
		if want == "" || strings.Contains(want, "no such") || strings.Contains(want, "empty") || strings.Contains(want, "not a") {
			continue
		}
		// The same holds for where something goes.
		for _, stream := range []*bytes.Buffer{entries(t, file("d/"), file("d/evil")), entries(t, file("d"))} {
			err = tree.Unpack(t.Context(), stream, "d", typed, tree.UnpackOptions{Rules: rules})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("to %q: error %v, want %q", typed, err, want)
			}
		}
	}
	if got := look(t, filepath.Join(root, "out")); len(got) != 1 || got["secret"] != canary {
		t.Errorf("outside is %q", got)
	}
	// The current directory may be in the share, too.
	t.Chdir(filepath.Join(root, "share", "sub"))
	for typed, ok := range map[string]bool{"f": true, "../abs/secret": false, "../../out/secret": true, "../../mine/sub/f": true} {
		if err := tree.Pack(t.Context(), io.Discard, typed, "x", tree.PackOptions{Rules: rules}); (err == nil) != ok {
			t.Errorf("from %q: error %v", typed, err)
		}
	}
}

func TestTheGuestsOwnSideFollowsLinks(t *testing.T) {
	root, _ := layout(t)
	guest := tree.Rules{Guest: true}
	var b bytes.Buffer
	if err := tree.Pack(t.Context(), &b, filepath.Join(root, "share/file"), "file", tree.PackOptions{Rules: guest}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), canary) {
		t.Error("what the link leads to was not packed")
	}
	for dest, want := range map[string]string{
		filepath.Join(root, "share/rel"):   "out/d/evil",
		filepath.Join(root, "mine/rel/."):  "out/d/evil",
		filepath.Join(root, "share/inner"): "share/sub/d/evil",
	} {
		if err := tree.Unpack(t.Context(), entries(t, file("d/"), file("d/evil")), "d", dest, tree.UnpackOptions{Rules: guest}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(root, want)); err != nil {
			t.Error(err)
		}
		if err := os.Remove(filepath.Join(root, want)); err != nil {
			t.Error(err)
		}
	}
	// A link to a file is replaced where it leads.
	if err := tree.Unpack(t.Context(), entries(t, file("f")), "f", filepath.Join(root, "share/file"), tree.UnpackOptions{Rules: guest}); err != nil {
		t.Fatal(err)
	}
	if got := look(t, root); got["out/secret"] != "from the guest" || got["share/file"] != "-> ../out/secret" {
		t.Errorf("%q", got)
	}
}

func TestTreeGoesThroughTheGuestsLinksToDirectories(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "usr/bin/sh"), "shell")
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	stream := entries(t, file("./"), file("./bin/"), file("./bin/tool"), file("./bin/sub/"), file("./bin/sub/x"), file("./etc/"), file("./etc/f"))
	if err := tree.Unpack(t.Context(), stream, ".", root, tree.UnpackOptions{Rules: tree.Rules{Guest: true}}); err != nil {
		t.Fatal(err)
	}
	got := look(t, root)
	if got["bin"] != "-> usr/bin" || got["usr/bin/sh"] != "shell" || got["usr/bin/tool"] == "" || got["usr/bin/sub/x"] == "" || got["etc/f"] == "" {
		t.Errorf("%q", got)
	}
	// But not through a link that the stream itself has brought.
	err := tree.UnpackArchive(t.Context(), entries(t, symlink("new", "usr"), file("new/evil")), root, tree.UnpackOptions{Rules: tree.Rules{Guest: true}})
	if err == nil || look(t, root)["usr/evil"] != "" {
		t.Errorf("%v; %q", err, look(t, root))
	}
}

// On the way down and at its end, links take a directory's place while the copy
// is made.
func TestCopiesOfPathsInWhichLinksTakeThePlaceOfDirectories(t *testing.T) {
	root, rules := layout(t)
	for i := range 5 {
		write(t, filepath.Join(root, "share", "a", "b", fmt.Sprintf("f%d", i)), "mine")
		write(t, filepath.Join(root, "out", "b", fmt.Sprintf("f%d", i)), canary)
	}
	before := look(t, filepath.Join(root, "out"))
	round := swapping(t, filepath.Join(root, "share", "a"), filepath.Join(root, "out"))
	for range 100 {
		round()
		for _, source := range []string{"share", "share/a", "share/a/b", "share/a/b/f1", "mine/a/b"} {
			var b bytes.Buffer
			_ = tree.Pack(t.Context(), &b, filepath.Join(root, source), "x", tree.PackOptions{Rules: rules, LeftOut: func(string) {}})
			if strings.Contains(b.String(), canary) {
				t.Fatalf("from %s: what a link leads to was packed", source)
			}
		}
		for dest, stream := range map[string]*bytes.Buffer{
			"share/a": entries(t, file("x/"), file("x/evil")), "share/a/b": entries(t, file("x/"), file("x/evil")),
			"share/a/x": entries(t, file("x")), "share": entries(t, file("x/"), file("x/a/b/evil")),
		} {
			_ = tree.Unpack(t.Context(), stream, "x", filepath.Join(root, dest), tree.UnpackOptions{Rules: rules, LeftOut: func(string) {}})
		}
	}
	if after := look(t, filepath.Join(root, "out")); len(after) != len(before) {
		t.Errorf("outside was %q, and is %q", before, after)
	}
}

// through copies what is at source to dest.
func through(t *testing.T, source, dest string) error {
	t.Helper()
	var b bytes.Buffer
	if err := pack(t, &b, source, "x", never(t)); err != nil {
		return err
	}
	return unpack(t, &b, "x", dest, never(t))
}

func TestPipesAndDevicesAreReadAndWritten(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(root, "fifo")
	write(t, filepath.Join(root, "f"), "text")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// To a pipe, and from it.
	read := make(chan string)
	go func() {
		text, _ := os.ReadFile(fifo)
		read <- string(text)
	}()
	if err := through(t, filepath.Join(root, "f"), fifo); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got != "text" {
		t.Errorf("the pipe got %q", got)
	}
	big := strings.Repeat("0123456789abcdef", 200_000) // several chunks, the last one short
	go func() { _ = os.WriteFile(fifo, []byte(big), 0) }()
	if err := through(t, fifo, filepath.Join(root, "g")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "g")); err != nil || string(text) != big {
		t.Errorf("%d bytes of %d came through the pipe, %v", len(text), len(big), err)
	}
	if info, err := os.Lstat(fifo); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the pipe has become %v, %v", info.Mode(), err)
	}
	// Devices.
	if err := through(t, filepath.Join(root, "f"), "/dev/null"); err != nil {
		t.Error(err)
	}
	if err := through(t, "/dev/null", filepath.Join(root, "empty")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("/dev/null has become %v, %v", info.Mode(), err)
	}
	if err := through(t, t.TempDir(), "/dev/null"); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a directory to a device: %v", err)
	}
	// Files without a size.
	if err := through(t, "/proc/cpuinfo", filepath.Join(root, "cpuinfo")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(root, "cpuinfo")); err != nil || info.Size() == 0 {
		t.Errorf("a file of /proc has %d bytes, %v", info.Size(), err)
	}
	// Sockets.
	socket := filepath.Join(root, "socket")
	if err := unix.Mknod(socket, unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if err := through(t, socket, filepath.Join(root, "h")); err == nil {
		t.Error("a socket was copied")
	}
	if err := through(t, filepath.Join(root, "f"), socket); err == nil {
		t.Error("a socket was replaced")
	}
	if err := unpack(t, entries(t, file("x/"), file("x/fifo")), "x", root, never(t)); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(root, "x", "fifo")); err != nil {
		t.Error(err)
	}
	if err := os.Rename(fifo, filepath.Join(root, "x", "fifo")); err != nil {
		t.Error(err)
	}
	if err := unpack(t, entries(t, file("x/"), file("x/fifo")), "x", root, never(t)); err == nil {
		t.Error("a pipe in a tree was replaced")
	}
}

func TestOpenFilesOfTheProcess(t *testing.T) {
	root := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = w.WriteString("through a pipe")
		w.Close()
	}()
	if err := through(t, fmt.Sprintf("/dev/fd/%d", r.Fd()), filepath.Join(root, "f")); err != nil {
		t.Fatal(err)
	}
	r.Close()
	f, err := os.OpenFile(filepath.Join(root, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		_, err = f.WriteString("first, ")
	}
	if err == nil {
		err = through(t, filepath.Join(root, "f"), fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	}
	if err == nil {
		_, err = f.WriteString(", last")
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "log")); string(text) != "first, through a pipe, last" {
		t.Errorf("%q, %v", text, err)
	}
	if err := through(t, "/dev/fd/9999", filepath.Join(root, "g")); err == nil {
		t.Error("a file that is not open was copied")
	}
}

func TestWaitForAPipeEndsWithTheContext(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- tree.Pack(ctx, io.Discard, fifo, "x", tree.PackOptions{}) }()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// For the one that waits in the kernel still.
	if fd, err := unix.Open(fifo, unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
		unix.Close(fd)
	}
}

func TestHolesTravelAsHoles(t *testing.T) {
	const size = 3 << 30
	for name, places := range map[string][]int64{
		"in the middle": {size / 2}, "at both ends": {0, size - 4}, "nothing": nil, "many": {1 << 20, 5 << 20, 1 << 30, 2 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			source, dest := filepath.Join(root, "f"), filepath.Join(root, "copy")
			f, err := os.Create(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range places {
				if _, err := f.WriteAt([]byte("data"), at); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := pack(t, &b, source, "x", never(t)); err != nil {
				t.Fatal(err)
			}
			if b.Len() > 1<<20 {
				t.Errorf("%d bytes travel", b.Len())
			}
			if err := unpack(t, &b, "x", dest, never(t)); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(dest, &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
				t.Errorf("%d bytes take %d, %v", st.Size, st.Blocks*512, err)
			}
			g, err := os.Open(dest)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			for _, at := range places {
				buf := make([]byte, 4)
				if _, err := g.ReadAt(buf, at); err != nil || string(buf) != "data" {
					t.Errorf("at %d is %q, %v", at, buf, err)
				}
			}
		})
	}
}

func chunk(name string, records map[string]string) tar.Header {
	return tar.Header{Name: name, PAXRecords: records, Format: tar.FormatPAX}
}

func TestHostileChunks(t *testing.T) {
	more := func(offset string) map[string]string {
		return map[string]string{"SANDBOX.offset": offset, "SANDBOX.more": "1"}
	}
	end := func(size string) map[string]string { return map[string]string{"SANDBOX.size": size} }
	for name, stream := range map[string][]tar.Header{
		"backwards":           {chunk("f", more("100")), chunk("f", more("50")), chunk("f", end("200"))},
		"another name":        {chunk("f", more("0")), chunk("g", end("200"))},
		"a link in between":   {chunk("f", more("0")), symlink("f", "/etc")},
		"no end":              {chunk("f", more("0"))},
		"smaller than it is":  {chunk("f", more("100")), chunk("f", end("50"))},
		"no number":           {chunk("f", more("-1")), chunk("f", end("50"))},
		"no number as size":   {chunk("f", end("many"))},
		"larger than all":     {chunk("f", more("9223372036854775800")), chunk("f", end("9223372036854775807"))},
		"more after the last": {chunk("f", end("200")), chunk("f", end("200"))},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := unpack(t, entries(t, stream...), "f", filepath.Join(root, "dest"), never(t)); err == nil {
				t.Error("the stream was accepted")
			}
			if got := slices.Sorted(maps.Keys(look(t, root))); len(got) > 1 {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestDeepTreesTravel(t *testing.T) {
	source, dest := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	want := deep(t, source)
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(t, w, source, "x", never(t))) }()
	if err := unpack(t, r, "x", dest, never(t)); err != nil {
		t.Fatal(err)
	}
	if got := depthOf(t, dest); got != want {
		t.Errorf("the copy is %d levels deep, want %d", got, want)
	}
	for _, dir := range []string{source, dest} {
		if err := tree.Remove(dir); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatCannotBeReadIsSaidAndTheRestCopied(t *testing.T) {
	root := t.TempDir()
	asUser(t, root, func() {
		source := filepath.Join(root, "source")
		for name, mode := range map[string]fs.FileMode{"a": 0o600, "locked": 0, "z": 0o600} {
			if err := errors.Join(os.MkdirAll(source, 0o700), os.WriteFile(filepath.Join(source, name), []byte(name), 0o600), os.Chmod(filepath.Join(source, name), mode)); err != nil {
				t.Error(err)
			}
		}
		var b bytes.Buffer
		err := pack(t, &b, source, "x", never(t))
		if err == nil || !strings.Contains(err.Error(), "locked") || strings.Contains(err.Error(), "z") {
			t.Errorf("error %v, want one about what is locked", err)
		}
		if err := unpack(t, &b, "x", filepath.Join(root, "copy"), never(t)); err != nil {
			t.Error(err)
		}
		if got := slices.Sorted(maps.Keys(look(t, filepath.Join(root, "copy")))); !slices.Equal(got, []string{"a", "z"}) {
			t.Errorf("got %q", got)
		}
		if err := pack(t, io.Discard, filepath.Join(source, "locked"), "x", never(t)); err == nil {
			t.Error("a file that was named did not arrive, without an error")
		}
	})
}

// The tar of the machine is the judge of what an archive is.
func TestArchivesForOtherPrograms(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("needs tar: install it")
	}
	source, dest, back := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(source, "sub", "f"), "text")
	write(t, filepath.Join(source, "large"), strings.Repeat("x", 3<<20))
	if err := os.Symlink("f", filepath.Join(source, "sub", "l")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tree.Pack(t.Context(), &b, source, ".", tree.PackOptions{Archive: true}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-xf", "-")
	cmd.Dir, cmd.Stdin = dest, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := look(t, dest); !maps.Equal(got, look(t, source)) {
		t.Errorf("got %d things of %d", len(got), len(look(t, source)))
	}
	// And the other way, with what only other programs send.
	if err := errors.Join(
		os.Link(filepath.Join(source, "sub", "f"), filepath.Join(source, "again")), unix.Mkfifo(filepath.Join(source, "fifo"), 0o600),
		os.Truncate(filepath.Join(source, "large"), 128<<20),
	); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		cmd = exec.Command("tar", "--sparse", "--format="+format, "-cf", "-", ".")
		cmd.Dir = source
		archive, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(back, format)
		if err := os.Mkdir(to, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := tree.UnpackArchive(t.Context(), bytes.NewReader(archive), to, tree.UnpackOptions{Rules: tree.Rules{Guest: true}, LeftOut: never(t)}); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(to, "large"), &st); err != nil || st.Size != 128<<20 || st.Blocks*512 > 4<<20 {
			t.Errorf("%s: %d bytes take %d, %v", format, st.Size, st.Blocks*512, err)
		}
		if err := errors.Join(os.Remove(filepath.Join(to, "large"))); err != nil {
			t.Error(err)
		}
		got := look(t, to)
		if got["sub/f"] != "text" || got["again"] != "text" || got["sub/l"] != "-> f" || !strings.HasPrefix(got["fifo"], "p") {
			t.Errorf("%s: %q", format, got)
		}
	}
	if err := tree.UnpackArchive(t.Context(), entries(t, file("../evil")), dest, tree.UnpackOptions{Rules: tree.Rules{Guest: true}}); err == nil {
		t.Error("a path that leads out was accepted")
	}
}
