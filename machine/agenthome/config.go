package agenthome

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

const (
	maxFiles = 4096
	maxBytes = 32 << 20 // of all files together
	maxText  = 200      // bytes of a setting: longer ones are no choice among several

	// maxPrefix bounds what is looked at of a file to tell whether it is a key.
	maxPrefix = rules.MaxContent
)

// File is one for the guest's home.
type File struct {
	Path       string // below the home
	Content    []byte
	Executable bool
}

// Config is the user's configuration of an agent, as far as it is harmless. Its zero value is none.
type Config struct {
	Files    []File         // in order
	Settings map[string]any // tables within it as maps
	LeftOut  []string       // what would have gone along, and why not
}

// Dir is where the agent's configuration is on this machine.
func (a Agent) Dir(getenv func(string) string) (string, error) {
	if a.variable != "" && getenv(a.variable) != "" {
		return filepath.Abs(getenv(a.variable))
	}
	home := getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("HOME does not say where your home is: set it")
	}
	return filepath.Join(home, a.dir), nil
}

// Read reads the user's configuration in a directory. There need not be one.
func (a Agent) Read(dir string) (Config, error) {
	r := reader{agent: a, dir: dir}
	root, err := os.OpenRoot(dir) // which links do not lead out of
	if errors.Is(err, fs.ErrNotExist) {
		return r.Config, nil
	}
	if err != nil {
		return Config{}, err
	}
	defer root.Close()
	r.root = root
	if r.keys, err = rules.New(rules.Choice{}); err != nil {
		return Config{}, err
	}
	for _, name := range a.whole {
		if err := r.whole(name); err != nil {
			return Config{}, fmt.Errorf("reading the configuration of %s in %s: %w", a.Name, dir, err)
		}
	}
	r.settings()
	return r.Config, nil
}

type reader struct {
	Config
	agent Agent
	dir   string
	root  *os.Root
	keys  *rules.Set
	bytes int64
}

func (r *reader) leaveOut(name, why string) {
	r.LeftOut = append(r.LeftOut, fmt.Sprintf("%s: %s", filepath.Join(r.dir, name), why))
}

// whole takes a file, or all that is in a directory.
func (r *reader) whole(name string) error {
	return fs.WalkDir(r.root.FS(), name, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			r.leaveOut(name, unwrap(err).Error())
			return nil
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			r.leaveOut(name, "it is a link, or no file")
			return nil
		}
		content, info, err := r.read(name)
		if _, many := errors.AsType[*sizeError](err); many {
			return err
		}
		if err != nil {
			r.leaveOut(name, unwrap(err).Error())
			return nil
		}
		if r.isKey(name, content) {
			r.leaveOut(name, "it looks like a key or a login")
			return nil
		}
		r.Files = append(r.Files, File{path.Join(r.agent.dir, name), content, info.Mode()&0o100 != 0})
		return nil
	})
}

type sizeError struct{}

func (*sizeError) Error() string {
	return fmt.Sprintf("it has more than %d files, or %d MiB: move out what the agent does not read", maxFiles, maxBytes>>20)
}

// read reads a file that is none to which a link leads.
func (r *reader) read(name string) ([]byte, fs.FileInfo, error) {
	named, err := r.root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !named.Mode().IsRegular() {
		return nil, nil, errors.New("it is a link, or no file")
	}
	f, err := r.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !os.SameFile(named, info) {
		return nil, nil, errors.New("it is being replaced")
	}
	content, err := io.ReadAll(io.LimitReader(f, maxBytes-r.bytes+1))
	if err != nil {
		return nil, nil, err
	}
	if r.bytes += int64(len(content)); r.bytes > maxBytes || len(r.Files) >= maxFiles {
		return nil, nil, &sizeError{}
	}
	return content, info, nil
}

// isKey tells whether a guest could not read the file in a share either.
func (r *reader) isKey(name string, content []byte) bool {
	known := func() ([]byte, error) { return content[:min(len(content), maxPrefix)], nil }
	return r.keys.Judge(rules.Access{Operation: rules.Read, Path: name, Content: known}).Refused
}

// settings takes those that are known as harmless.
func (r *reader) settings() {
	name := r.agent.settings
	content, _, err := r.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var all map[string]any
	if err == nil {
		all, err = decode(name, content)
	}
	if err != nil {
		r.leaveOut(name, unwrap(err).Error())
		return
	}
	r.Settings = map[string]any{}
	for _, setting := range r.agent.harmless {
		take(r.Settings, all, strings.Split(setting, "."))
	}
}

// take copies a setting if it is there, and a choice.
func take(to, from map[string]any, names []string) {
	value, ok := from[names[0]]
	if table, is := value.(map[string]any); is && len(names) > 1 {
		below, _ := to[names[0]].(map[string]any)
		if below == nil {
			below = map[string]any{}
		}
		if take(below, table, names[1:]); len(below) > 0 {
			to[names[0]] = below
		}
		return
	}
	if ok && len(names) == 1 && isChoice(value) {
		to[names[0]] = value
	}
}

func isChoice(value any) bool {
	switch v := value.(type) {
	case bool, int64, float64:
		return true
	case string:
		return len(v) <= maxText && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' })
	}
	return false
}

// decode does not say what is in a file that it cannot read.
func decode(name string, content []byte) (all map[string]any, err error) {
	if path.Ext(name) == ".toml" {
		err = toml.Unmarshal(content, &all)
	} else {
		err = json.Unmarshal(content, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("it is not the %s that it should be", strings.ToUpper(path.Ext(name)[1:]))
	}
	return all, nil
}

// unwrap is an error without the path, which is told beside it.
func unwrap(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err
	}
	return err
}

// Names are those of the settings, and of the files and directories that go along, as they are in the agent's directory.
func (c Config) Names(a Agent) []string {
	var names []string
	for _, f := range c.Files {
		name, _, _ := strings.Cut(strings.TrimPrefix(f.Path, a.dir+"/"), "/")
		names = append(names, name)
	}
	names = slices.Compact(names)
	for _, setting := range a.harmless {
		found := map[string]any{}
		if take(found, c.Settings, strings.Split(setting, ".")); len(found) > 0 {
			names = append(names, setting)
		}
	}
	return names
}

// Files are those for the home of a guest, whose agent has that configuration and asks nothing before it works.
func (a Agent) Files(c Config, g Guest) ([]File, error) {
	settings := map[string]any{}
	for _, name := range a.harmless {
		take(settings, c.Settings, strings.Split(name, "."))
	}
	files := slices.Clone(c.Files)
	if a.welcome != nil {
		for name, answers := range a.welcome(g, settings) {
			text, err := json.Marshal(answers)
			if err != nil {
				return nil, err
			}
			files = append(files, File{Path: name, Content: text})
		}
	}
	if len(settings) == 0 {
		return files, nil
	}
	marshal := func() ([]byte, error) { return json.MarshalIndent(settings, "", "  ") }
	if path.Ext(a.settings) == ".toml" {
		marshal = func() ([]byte, error) { return toml.Marshal(settings) }
	}
	text, err := marshal()
	return append(files, File{Path: path.Join(a.dir, a.settings), Content: text}), err
}

// Archive is a tar of the files, each for its owner alone. Directories that they are in come before them.
func Archive(files []File) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made, now := map[string]bool{}, time.Now()
	for _, f := range files {
		for i, c := range f.Path {
			if dir := f.Path[:i]; c == '/' && !made[dir] {
				made[dir] = true
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o700, ModTime: now}); err != nil {
					return nil, err
				}
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: 0o600, Size: int64(len(f.Content)), ModTime: now}
		if f.Executable {
			h.Mode = 0o700
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}
