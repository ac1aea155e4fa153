package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// file is one of the root's, which belongs to root unless it says otherwise. It
// is a directory, a link or a regular file, by the type in its mode.
type file struct {
	mode     fs.FileMode
	uid, gid int
	data     []byte // or where the link leads
}

func linkTo(target string) file { return file{mode: fs.ModeSymlink | 0o777, data: []byte(target)} }

func jsonFile(value any, end string) file {
	data, _ := json.Marshal(value) // of a map from names to numbers
	return file{mode: 0o644, data: append(data, end...)}
}

// root is what NixOS's second stage and activation would make at each boot by
// the configuration alone.
type root struct {
	accounts
	// Etc is the tree of the configuration's /etc, as NixOS's etc.nix makes it
	// for its setup-etc.pl.
	Etc string `json:"etc"`
	// Links are other links of the root, and where they lead.
	Links map[string]string `json:"links"`
	// Wrappers is the directory of what the guest mounts on /run/wrappers.
	Wrappers string `json:"wrappers"`
	// StoreGroup is the number of the group that may write to the store: that of
	// Nix's builders.
	StoreGroup int `json:"storeGroup"`
}

// files are all files by their names, without those of the directories that
// everybody may enter.
func (r *root) files() (map[string]file, error) {
	if err := r.number(); err != nil {
		return nil, err
	}
	files, err := r.databases()
	if err != nil {
		return nil, err
	}
	if err := r.etc(files); err != nil {
		return nil, err
	}
	files["nix/store"] = file{mode: fs.ModeDir | unixMode(0o1775), gid: r.StoreGroup}
	for name, target := range r.Links {
		files[name] = linkTo(target)
	}
	for _, u := range r.Users {
		if !u.CreateHome {
			continue
		}
		mode, err := strconv.ParseUint(u.HomeMode, 8, 12)
		if err != nil {
			return nil, fmt.Errorf("the home of %s: %w", u.Name, err)
		}
		files[strings.TrimPrefix(path.Clean(u.Home), "/")] = file{mode: fs.ModeDir | unixMode(mode), uid: *u.UID, gid: u.gid}
	}
	return files, nil
}

// etc adds what NixOS's setup-etc.pl makes in an /etc that is empty: links to
// the tree, through /etc/static, and copies of those files that say how they
// are to be, in files beside them.
func (r *root) etc(files map[string]file) error {
	files["etc/static"] = linkTo(r.Etc)
	files["etc/NIXOS"] = file{mode: 0o644}
	files["etc/nixos"] = file{mode: fs.ModeDir | 0o755}
	var copied []string
	err := filepath.WalkDir(r.Etc, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		target := strings.TrimPrefix(name, r.Etc+"/")
		mode, err := os.ReadFile(name + ".mode")
		switch word := strings.TrimSpace(string(mode)); {
		case errors.Is(err, fs.ErrNotExist):
			if entry.Type() == fs.ModeSymlink {
				files["etc/"+target] = linkTo("/etc/static/" + target)
			}
			return nil
		case err != nil:
			return err
		case word == "direct-symlink":
			to, err := os.Readlink(name)
			if err != nil {
				return err
			}
			files["etc/"+target] = linkTo(to)
		default:
			f, err := r.copied(name, word)
			if err != nil {
				return fmt.Errorf("/etc/%s: %w", target, err)
			}
			files["etc/"+target] = f
		}
		copied = append(copied, target+"\n")
		return nil
	})
	slices.Sort(copied)
	files["etc/.clean"] = file{mode: 0o644, data: []byte(strings.Join(copied, ""))}
	return err
}

// copied is a file of /etc that is no link.
func (r *root) copied(name, mode string) (file, error) {
	bits, err := strconv.ParseUint(mode, 8, 12)
	if err != nil {
		return file{}, err
	}
	f := file{mode: unixMode(bits)}
	if f.uid, err = owner(name+".uid", r.uid); err != nil {
		return file{}, err
	}
	if f.gid, err = owner(name+".gid", r.accounts.gid); err != nil {
		return file{}, err
	}
	f.data, err = os.ReadFile(name)
	return f, err
}

// owner reads a number that begins with "+", or a name.
func owner(name string, number func(string) (int, error)) (int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	word := strings.TrimSpace(string(text))
	if digits, ok := strings.CutPrefix(word, "+"); ok {
		return strconv.Atoi(digits)
	}
	return number(word)
}

func unixMode(bits uint64) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	for i, special := range []fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if bits&(1<<(9+i)) != 0 {
			mode |= special
		}
	}
	return mode
}

// modeBits is the inverse of unixMode.
func modeBits(mode fs.FileMode) uint64 {
	bits := uint64(mode.Perm())
	for i, special := range []fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if mode&special != 0 {
			bits |= 1 << (9 + i)
		}
	}
	return bits
}

// writeTar writes the files, with the directories that they are in, as the
// beginning of an archive: what another program packs can follow.
func writeTar(w io.Writer, files map[string]file, built time.Time) error {
	for _, name := range slices.Collect(maps.Keys(files)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, there := files[dir]; !there {
				files[dir] = file{mode: fs.ModeDir | 0o755}
			}
		}
	}
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		header := &tar.Header{
			Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: "./" + name, Mode: int64(modeBits(f.mode)),
			Uid: f.uid, Gid: f.gid, ModTime: built,
		}
		switch f.mode.Type() {
		case fs.ModeDir:
			header.Typeflag = tar.TypeDir
			header.Name += "/"
		case fs.ModeSymlink:
			header.Typeflag, header.Linkname = tar.TypeSymlink, string(f.data)
		default:
			header.Size = int64(len(f.data))
		}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		if header.Size > 0 {
			if _, err := archive.Write(f.data); err != nil {
				return fmt.Errorf("/%s: %w", name, err)
			}
		}
	}
	return archive.Flush()
}
