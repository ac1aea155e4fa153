// Package project reads the files that say what sandboxes are like: a project's own,
// sandbox.toml, and the user's.
//
// A project file may come from a stranger, or be written by the last guest that had
// the project as a share. So it may describe the machine, but not open anything to it by
// itself: its shares and its flake must lie in the project, its network mode may only be
// narrower than the user's own, and what opens more counts with the user's consent
// ([Request]). What there is to set, and who may set it, is in [Options].
package project

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
	toml "github.com/pelletier/go-toml/v2"
	"github.com/xrash/smetrics"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/nix"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// FileName is that of a project's file. The nearest one in the working directory or
// above it counts.
const FileName = "sandbox.toml"

// File is what a file sets.
type File struct {
	Source   Source
	Dir      string    // of the file, without links
	Settings []Setting // in the order of the file
}

// Setting is one key of a file with its values, as flags take them: directories are
// absolute, and judged.
type Setting struct {
	Key    string
	Values []string // one, unless it is a list
	Err    error    // why the values cannot be used, which matters to nobody who has others

	file         string
	line, column int
}

// Errorf returns an error about the setting, with its place.
func (s Setting) Errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %s: %w", s.file, s.line, s.column, s.Key, fmt.Errorf(format, args...))
}

// Load reads the files that count in the directory cwd: the project's, and then the
// user's own, which userFile names unless there is none. A file that somebody else
// than the owners may have written, or that is in a directory where they could have
// put it, does not count, and skip is told why. With an error, what else could be read
// is returned all the same, for its own mistakes.
func Load(owners trust.Owners, cwd, userFile string, skip func(error)) ([]File, error) {
	var files []File
	var errs []error
	read := func(f *os.File, layer Layer) {
		if f == nil {
			return
		}
		defer f.Close()
		file, err := parse(f, layer)
		files, errs = append(files, file), append(errs, err)
	}
	read(openUp(owners, cwd, skip), ProjectFile)
	read(openOwn(owners, userFile, skip), UserFile)
	return files, errors.Join(errs...)
}

// openUp opens the nearest project file in dir or above it that counts, or returns
// nil.
func openUp(owners trust.Owners, dir string, skip func(error)) *os.File {
	for {
		if f := openOwn(owners, filepath.Join(dir, FileName), skip); f != nil {
			return f
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

// openOwn opens a file if there is one that counts, and otherwise returns nil.
// Somebody else's is as good as none: who could order a sandbox of theirs here would
// do so with every directory that all may write.
func openOwn(owners trust.Owners, file string, skip func(error)) *os.File {
	if file == "" {
		return nil // who has no home has no file of their own
	}
	f, err := owners.Open(file)
	switch foreign := (*trust.Error)(nil); {
	case err == nil:
		return f
	case errors.As(err, &foreign):
		skip(fmt.Errorf("%w, so %s does not count", foreign, file))
	case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
		skip(fmt.Errorf("%s does not count: %w", file, err))
	}
	return nil
}

// maxSize guards against devices and files that are no settings, in bytes.
const maxSize = 1 << 20

// parse reads the file to its end.
func parse(f *os.File, layer Layer) (File, error) {
	path := f.Name()
	file := File{Source: Source{layer, path}}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return file, err
	}
	if len(data) > maxSize {
		return file, fmt.Errorf("%s is larger than %d MiB, as no file of settings is", path, maxSize>>20)
	}
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, column := bad.Position()
			return file, fmt.Errorf("%s:%d:%d: %s", path, line, column, strings.TrimPrefix(bad.Error(), "toml: "))
		}
		return file, fmt.Errorf("%s: %w", path, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return file, err
	}
	file.Dir = dir
	options := Options()
	var errs []error
	for _, s := range places(data, path) {
		i := slices.IndexFunc(options, func(o Option) bool { return o.Name == s.Key && o.InFile(UserFile) })
		switch {
		case i < 0:
			errs = append(errs, s.Errorf("there is no such setting%s", nearest(s.Key, layer)))
		case !options[i].InFile(layer):
			errs = append(errs, s.Errorf("a project's file cannot set it: only the user's own can, and the command line"))
		default:
			s.Values, s.Err = s.resolve(values[s.Key], options[i], dir, layer)
			file.Settings = append(file.Settings, s)
		}
	}
	if n := len(file.Request().Asks); n > maxAsks {
		errs = append(errs, fmt.Errorf("%s asks for %d things, and more than %d are more than one can judge", path, n, maxAsks))
	}
	for _, s := range file.Settings {
		if s.Key == "image" && values["flake"] != nil {
			errs = append(errs, s.Errorf("image and flake both name an image: only one of them can be set"))
		}
	}
	return file, errors.Join(errs...)
}

// places lists the keys of a file with their places, without values. They are those
// that a decoder misses for which there are none.
func places(data []byte, path string) []Setting {
	var none struct{}
	missing, ok := errors.AsType[*toml.StrictMissingError](toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&none))
	if !ok {
		return nil
	}
	var settings []Setting
	for _, e := range missing.Errors {
		line, column := e.Position()
		s := Setting{Key: e.Key()[0], file: path, line: line, column: column}
		// Of a table, each key is missed.
		if !slices.ContainsFunc(settings, func(other Setting) bool { return other.Key == s.Key }) {
			settings = append(settings, s)
		}
	}
	return settings
}

// resolve returns the values of a setting as flags take them.
func (s Setting) resolve(value any, option Option, dir string, layer Layer) ([]string, error) {
	values, err := asText(value, option.Kind)
	if err != nil {
		return nil, s.Errorf("%w", err)
	}
	held := layer == ProjectFile && option.Trust == Inside
	for i, v := range values {
		switch option.Kind {
		case Shares:
			values[i], err = share(v, dir, held)
		case Flake:
			values[i], err = flake(v, dir, held)
		case Image:
			if image.IsDirectory(v) {
				err = remedy.Add(fmt.Errorf("%q is a directory", v), remedy.SetByFlag, "image")
			}
		default:
			if layer == ProjectFile && option.Trust == Consent {
				err = checkAsk(Ask{option.Name, v})
			}
			if err == nil {
				err = option.check(v)
			}
		}
		if err != nil {
			return nil, s.Errorf("%w", err)
		}
	}
	return values, nil
}

// check judges a value by itself: as the schema does, and as what it opens or closes is read.
func (o Option) check(value string) error {
	switch o.Kind {
	case Size:
		if _, err := ParseSize(value); err != nil {
			return fmt.Errorf("%q is not a value for it: it must be %w", value, err)
		}
	case Duration:
		if d, err := time.ParseDuration(value); err != nil || d < 0 {
			return fmt.Errorf("%q is not a value for it: it must be a duration such as 90s or 5m", value)
		}
	default:
		if len(o.Values) > 0 && !slices.Contains(o.Values, value) {
			return fmt.Errorf("%q is not a value for it: use %s", value, or(o.Values))
		}
	}
	return checkAccess(o.Name, value)
}

// ParseSize returns MiB; a number without a unit is MiB, as for QEMU's -m. Its error
// says what it must be.
func ParseSize(s string) (int, error) {
	if strings.Trim(s, "0123456789") == "" {
		s += "M"
	}
	bytes, err := units.RAMInBytes(s)
	if err != nil {
		return 0, errors.New("a size such as 512M or 4G")
	}
	return int((bytes + 1<<20 - 1) >> 20), nil // rounded up, lest a little becomes none
}

// nearest suggests a key that can be meant.
func nearest(unknown string, layer Layer) string {
	best, likeness := "", 0.85 // below it, two words have little in common
	var all []string
	for _, o := range Options() {
		if !o.InFile(layer) {
			continue
		}
		all = append(all, o.Name)
		if l := smetrics.JaroWinkler(strings.ToLower(unknown), o.Name, 0.7, 4); l > likeness {
			best, likeness = o.Name, l
		}
	}
	if best != "" {
		return fmt.Sprintf(": is %s meant?", best)
	}
	return ": there are " + strings.Join(all, ", ")
}

// asText is a value as flags take it.
func asText(value any, kind Kind) ([]string, error) {
	form := forms[kind]
	values, isList := value.([]any)
	if isList && !form.list {
		return nil, form.wrong()
	}
	if !isList {
		values = []any{value}
	}
	texts := make([]string, 0, len(values))
	for _, v := range values {
		_, isText := v.(string)
		number, isNumber := v.(int64)
		if !(isText && form.text || isNumber && form.number) {
			return nil, form.wrong()
		}
		if number < 0 {
			return nil, fmt.Errorf("the value is %d, but must not be negative", number)
		}
		texts = append(texts, fmt.Sprint(v))
	}
	return texts, nil
}

// share makes a share's host directory absolute, and one of a project file is held to
// its project.
func share(spec, dir string, held bool) (string, error) {
	share, err := virtiofs.ParseShare(spec, dir)
	if err != nil {
		return "", err
	}
	if held && !inside(dir, share.Source) {
		return "", remedy.Add(fmt.Errorf("%s lies outside the project %s: a project file may share only what is in its project", share.Source, dir), remedy.SetYourself, "share")
	}
	if held && share.File && !strings.Contains(spec, "rules=none") {
		share.Rules.None = false // it is not the user who has named the file
	}
	if held && share.Rules.Widens() {
		return "", remedy.Add(fmt.Errorf("%q takes rules away that keep this machine safe: a project file may only add some, by refuse= and hide=", spec), remedy.SetYourself, "share")
	}
	return share.String(), nil
}

// flake makes a flake's directory absolute, and one of a project file is held to its
// project: only the user decides what else Nix may run.
func flake(text, dir string, held bool) (string, error) {
	ref, err := nix.ParseRef(text, dir)
	if err != nil {
		return "", err
	}
	if held && !inside(dir, ref.Dir) {
		return "", remedy.Add(fmt.Errorf("%s is not in the project %s: a project file may name only a flake of its project", ref, dir), remedy.SetYourself, "flake")
	}
	return ref.String(), nil
}

func inside(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator))
}
