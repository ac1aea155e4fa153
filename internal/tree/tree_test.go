package tree_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/tree"
)

// entries makes a tar stream; a name that ends in a slash is a directory.
func entries(t *testing.T, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			body = "from the guest"
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag, body = tar.TypeDir, ""
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func file(name string) tar.Header { return tar.Header{Name: name} }

func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
}

// look lists all that is in dir: files with their contents, links with their
// targets.
func look(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			found[name+"/"] = ""
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		case 0:
			data, err := os.ReadFile(path)
			found[name] = string(data)
			return err
		default:
			found[name] = d.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pack and unpack are a copy's two sides where the host is both.
func pack(t *testing.T, w io.Writer, source, name string, leftOut func(string)) error {
	t.Helper()
	return tree.Pack(t.Context(), w, source, name, tree.PackOptions{LeftOut: leftOut})
}

func unpack(t *testing.T, r io.Reader, name, dest string, leftOut func(string)) error {
	t.Helper()
	return tree.Unpack(t.Context(), r, name, dest, tree.UnpackOptions{LeftOut: leftOut})
}

func never(t *testing.T) func(string) {
	return func(path string) { t.Errorf("%s was left out", path) }
}

func TestHostileStreamsStayInTheDestination(t *testing.T) {
	for name, stream := range map[string][]tar.Header{
		"absolute name":               {file("d/"), file("/tmp/evil")},
		"absolute top":                {file("/d/")},
		"dots":                        {file("d/"), file("d/../../evil")},
		"dots that stay":              {file("d/"), file("d/x/../evil")},
		"dots as the top":             {file("../")},
		"another top":                 {file("e/"), file("e/evil")},
		"a sibling":                   {file("d/"), file("evil")},
		"a sibling with the prefix":   {file("d/"), file("d-evil")},
		"through an absolute link":    {file("d/"), symlink("d/l", "OUT"), file("d/l/evil")},
		"through a relative link":     {file("d/"), symlink("d/l", "../../out"), file("d/l/evil")},
		"through a link that stays":   {file("d/"), file("d/real/"), symlink("d/l", "real"), file("d/l/evil")},
		"through a link to a link":    {file("d/"), symlink("d/a", ".."), symlink("d/b", "a/.."), file("d/b/evil")},
		"directory onto a link":       {file("d/"), symlink("d/l", "OUT"), file("d/l/")},
		"through a link in the place": {file("d/"), file("d/planted/evil")},
		"through the top as a link":   {symlink("d", "OUT"), file("d/evil")},
		"the top twice":               {file("d/"), symlink("d", "OUT"), file("d/evil")},
		"hard link to the outside":    {file("d/"), hardlink("d/l", "OUT/secret")},
		"hard link with dots":         {file("d/"), hardlink("d/l", "d/../../out/secret")},
		"hard link through a link":    {file("d/"), symlink("d/a", "OUT"), hardlink("d/l", "d/a/secret")},
		"hard link to a link":         {file("d/"), symlink("d/a", "OUT/secret"), hardlink("d/l", "d/a"), file("d/l")},
		"more than one file":          {file("d"), file("evil")},
		"link and then more":          {symlink("d", "OUT"), file("d")},
		"nothing":                     {},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dest, out := filepath.Join(root, "dest"), filepath.Join(root, "out")
			write(t, filepath.Join(out, "secret"), "secret")
			write(t, filepath.Join(dest, "mine"), "mine")
			for i := range stream {
				stream[i].Linkname = strings.ReplaceAll(stream[i].Linkname, "OUT", out)
			}
			if strings.Contains(name, "in the place") {
				if err := os.Mkdir(filepath.Join(dest, "d"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(out, filepath.Join(dest, "d", "planted")); err != nil {
					t.Fatal(err)
				}
			}
			if err := unpack(t, entries(t, stream...), "d", dest, func(string) {}); err == nil {
				t.Error("the stream was accepted")
			}
			after := look(t, root)
			for path, text := range after {
				inside := path == "dest/d" || strings.HasPrefix(path, "dest/d/")
				if !inside && !slices.Contains([]string{"dest/", "dest/mine", "out/", "out/secret"}, path) {
					t.Errorf("%s was written", path)
				}
				if text == "from the guest" && strings.Contains(path, "evil") {
					t.Errorf("%s came through", path)
				}
			}
			if after["out/secret"] != "secret" || after["dest/mine"] != "mine" {
				t.Errorf("files of the host were changed: %q", after)
			}
		})
	}
}

func TestTreeIsNotPutThroughALinkThatAGuestPlanted(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "out", "mine"), "mine")
	write(t, filepath.Join(root, "share", "x"), "")
	if err := os.Symlink("../out", filepath.Join(root, "share", "d")); err != nil {
		t.Fatal(err)
	}
	err := unpack(t, entries(t, file("d/"), file("d/evil")), "d", filepath.Join(root, "share"), never(t))
	if err == nil || len(look(t, filepath.Join(root, "out"))) != 1 {
		t.Errorf("%v; outside is %q", err, look(t, filepath.Join(root, "out")))
	}
}

func TestFileReplacesALinkInsteadOfWritingThroughIt(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "out", "mine"), "mine")
	dest := filepath.Join(root, "dest")
	write(t, filepath.Join(dest, "x"), "")
	if err := os.Symlink("../out/mine", filepath.Join(dest, "f")); err != nil {
		t.Fatal(err)
	}
	if err := unpack(t, entries(t, file("f")), "f", dest, never(t)); err != nil {
		t.Fatal(err)
	}
	got := look(t, root)
	if got["dest/f"] != "from the guest" || got["out/mine"] != "mine" {
		t.Errorf("%q", got)
	}
}

func TestWhereACopyGoes(t *testing.T) {
	for name, tt := range map[string]struct {
		stream []tar.Header
		name   string
		dest   string
		want   []string // beside there/ and a.txt; nil: an error
	}{
		"file into a directory":        {[]tar.Header{file("f")}, "f", "there", []string{"there/f"}},
		"file with the slash":          {[]tar.Header{file("f")}, "f", "there/", []string{"there/f"}},
		"file with a new name":         {[]tar.Header{file("f")}, "f", "new", []string{"new"}},
		"file over a file":             {[]tar.Header{file("f")}, "f", "a.txt", []string{}},
		"file into no directory":       {[]tar.Header{file("f")}, "f", "new/", nil},
		"file below no directory":      {[]tar.Header{file("f")}, "f", "new/f", nil},
		"link with a new name":         {[]tar.Header{symlink("l", "x")}, "l", "new", []string{"new"}},
		"tree into a directory":        {[]tar.Header{file("d/"), file("d/f")}, "d", "there", []string{"there/d/", "there/d/f"}},
		"tree with a new name":         {[]tar.Header{file("d/"), file("d/f")}, "d", "new", []string{"new/", "new/f"}},
		"tree over a file":             {[]tar.Header{file("d/"), file("d/f")}, "d", "a.txt", nil},
		"tree below no directory":      {[]tar.Header{file("d/"), file("d/f")}, "d", "new/d", nil},
		"contents into a directory":    {[]tar.Header{file("./"), file("./f")}, ".", "there", []string{"there/f"}},
		"contents into a new one":      {[]tar.Header{file("./"), file("./e/"), file("./e/f")}, ".", "new", []string{"new/", "new/e/", "new/e/f"}},
		"a stream without directories": {[]tar.Header{file("d/"), file("d/e/f")}, "d", "new", []string{"new/", "new/e/", "new/e/f"}},
		"hard links":                   {[]tar.Header{file("d/"), file("d/f"), hardlink("d/g", "d/f")}, "d", "new", []string{"new/", "new/f", "new/g"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "a.txt"), "old")
			if err := os.Mkdir(filepath.Join(root, "there"), 0o755); err != nil {
				t.Fatal(err)
			}
			dest := root + "/" + tt.dest // not cleaned
			err := unpack(t, entries(t, tt.stream...), tt.name, dest, never(t))
			if (err != nil) != (tt.want == nil) {
				t.Fatal(err)
			}
			got := slices.Sorted(maps.Keys(look(t, root)))
			want := slices.Sorted(slices.Values(append(slices.Clone(tt.want), "a.txt", "there/")))
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSpecialFilesAndBitsAreLeftOut(t *testing.T) {
	dest := t.TempDir()
	var skipped []string
	err := unpack(t, entries(
		t, tar.Header{Name: "d/", Mode: 0o2775}, tar.Header{Name: "d/su", Mode: 0o6755},
		tar.Header{Name: "d/dev", Typeflag: tar.TypeBlock, Devmajor: 8}, tar.Header{Name: "d/pipe", Typeflag: tar.TypeFifo},
	), "d", dest, func(path string) { skipped = append(skipped, path) })
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"d": fs.ModeDir | 0o775, "d/su": 0o755} {
		info, err := os.Lstat(filepath.Join(dest, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s is %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if !slices.Equal(skipped, []string{"d/dev", "d/pipe"}) || len(look(t, dest)) != 2 {
		t.Errorf("skipped %q of %q", skipped, look(t, dest))
	}
}

func TestATreeComesBackAsItWent(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	write(t, filepath.Join(source, "locked", "f"), "text")
	write(t, filepath.Join(source, "-x", "näme\n"), strings.Repeat("x", 1<<20))
	if err := os.Symlink("/no/such", filepath.Join(source, "l")); err != nil {
		t.Fatal(err)
	}
	past := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	for name, mode := range map[string]fs.FileMode{"locked/f": 0o640, "locked": 0o555, ".": 0o750} {
		path := filepath.Join(source, name)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := pack(t, &b, source, "new", never(t)); err != nil {
		t.Fatal(err)
	}
	dest := t.TempDir()
	if err := unpack(t, &b, "new", dest, never(t)); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dest, "new")
	if got, want := look(t, copied), look(t, source); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, mode := range map[string]fs.FileMode{"locked/f": 0o640, "locked": fs.ModeDir | 0o555, ".": fs.ModeDir | 0o750} {
		info, err := os.Stat(filepath.Join(copied, name))
		if err != nil || info.Mode() != mode || !info.ModTime().Equal(past) {
			t.Errorf("%s is %v of %v, %v", name, info.Mode(), info.ModTime(), err)
		}
	}
	for _, dir := range []string{source, copied} {
		if err := os.Chmod(filepath.Join(dir, "locked"), 0o755); err != nil { // for the clean-up
			t.Error(err)
		}
	}
}

func TestContentsOfADirectory(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "source", "f"), "text")
	write(t, filepath.Join(root, "there", "mine"), "mine")
	if err := errors.Join(os.Chmod(filepath.Join(root, "source"), 0o750), os.Chmod(filepath.Join(root, "there"), 0o700)); err != nil {
		t.Fatal(err)
	}
	// A new directory is like the source; one that is there stays what it is.
	for dest, mode := range map[string]fs.FileMode{"new": 0o750, "there": 0o700} {
		var b bytes.Buffer
		if err := pack(t, &b, filepath.Join(root, "source", "."), ".", never(t)); err != nil {
			t.Fatal(err)
		}
		if err := unpack(t, &b, ".", filepath.Join(root, dest), never(t)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, dest))
		if err != nil || info.Mode().Perm() != mode || look(t, filepath.Join(root, dest))["f"] != "text" {
			t.Errorf("%s is %v, %v, with %q", dest, info.Mode(), err, look(t, filepath.Join(root, dest)))
		}
	}
}

func TestPackFollowsNoLinkInATree(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), canary)
	write(t, filepath.Join(dir, "tree", "f"), "mine")
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(dir, "tree", "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pack(t, &b, filepath.Join(dir, "tree"), "x", never(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), canary) {
		t.Error("what a link leads to was packed")
	}
}
