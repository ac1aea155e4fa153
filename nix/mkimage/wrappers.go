package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// wrappersDir is how the steps name the directory that NixOS's script has
// mktemp(1) make.
const wrappersDir = "wrappers/"

// wrappers adds the programs by which NixOS gives privileges to others, such as
// sudo. Their making is read from what NixOS's own script would run, a command
// to a line: cp, chown and chmod. setcap is left to the guest, as there are no
// capabilities in an archive, and so is all that is not about files in the
// script's directory.
func (r *root) wrappers(files map[string]file, steps string) error {
	for line := range strings.Lines(steps) {
		words := strings.Fields(line)
		if len(words) != 3 || !strings.HasPrefix(words[2], wrappersDir) {
			continue
		}
		name := path.Join(strings.TrimPrefix(r.Wrappers, "/"), "bin", strings.TrimPrefix(words[2], wrappersDir))
		f, err := files[name], error(nil)
		switch words[0] {
		case "cp":
			f.data, err = os.ReadFile(words[1])
		case "chown":
			owner, group, _ := strings.Cut(words[1], ":")
			f.uid, err = r.uid(owner)
			if err == nil {
				f.gid, err = r.accounts.gid(group)
			}
		case "chmod":
			f.mode, err = changeMode(f.mode, words[1])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path.Base(name), err)
		}
		files[name] = f
	}
	return nil
}

// changeMode changes a mode as chmod(1) does by a number, or by clauses that
// each name whose bits they change.
func changeMode(mode fs.FileMode, change string) (fs.FileMode, error) {
	if bits, err := strconv.ParseUint(change, 8, 12); err == nil {
		return unixMode(bits), nil
	}
	bits := modeBits(mode)
	for clause := range strings.SplitSeq(change, ",") {
		at := strings.IndexAny(clause, "+-=")
		if at <= 0 {
			return 0, fmt.Errorf("the mode %q is not understood: write it as u+rx,g+x is written, or as a number", change)
		}
		var chosen, all uint64
		for _, whose := range clause[:at] {
			class, ok := map[rune]uint64{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[whose]
			if !ok {
				return 0, errors.New("nobody is " + strconv.QuoteRune(whose) + " in the mode " + strconv.Quote(change))
			}
			all |= class
		}
		for _, what := range clause[at+1:] {
			permission, ok := map[rune]uint64{'r': 0o444, 'w': 0o222, 'x': 0o111, 's': 0o6000, 't': 0o1000}[what]
			if !ok {
				return 0, errors.New("nothing is " + strconv.QuoteRune(what) + " in the mode " + strconv.Quote(change))
			}
			chosen |= permission & all
		}
		switch clause[at] {
		case '+':
			bits |= chosen
		case '-':
			bits &^= chosen
		case '=':
			bits = bits&^all | chosen
		}
	}
	return unixMode(bits), nil
}
