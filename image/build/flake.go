package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/nix"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/trust"
)

// Flake builds the image of a flake with Nix, and installs it. What Nix needs of it
// is kept from its garbage collector for as long as the image is there.
func Flake(ctx context.Context, store *image.Store, o nix.Options) (Built, error) {
	start := time.Now()
	result, err := nix.Build(ctx, o)
	if err != nil {
		return Built{}, err
	}
	defer result.Close()
	building := time.Since(start)
	img, err := Install(ctx, store, result.Dir, o.Progress)
	if err != nil {
		return Built{}, err
	}
	root, err := store.RootLink(img)
	if err == nil {
		err = result.Keep(ctx, root)
	}
	if err == nil {
		err = store.SetOrigin(result.Origin, img)
	}
	return Built{Image: img, Building: building, Installing: time.Since(start) - building}, err
}

// OfFlake is the image that was last built from ref, or nil.
func OfFlake(store *image.Store, ref nix.Ref, system string) (*image.Image, error) {
	for _, origin := range ref.Origins(system) {
		if img, err := store.ByOrigin(origin); img != nil || err != nil {
			return img, err
		}
	}
	return nil, nil
}

// ChooseFlake is the flake that the user names in the directory dir, or else the
// nearest one there or above, or else the published one.
func ChooseFlake(named, dir string) (nix.Ref, error) {
	text := named
	switch {
	case named != "":
	case hasFlake(dir):
		text = "."
	default:
		return nix.ParseRef(nix.Published, dir)
	}
	ref, err := nix.ParseRef(text, dir)
	if err == nil {
		err = CheckFlake(ref, named)
	}
	return ref, err
}

// hasFlake tells whether there is a flake in dir or above it.
func hasFlake(dir string) bool {
	for {
		if info, err := os.Stat(filepath.Join(dir, nix.FlakeFile)); err == nil && info.Mode().IsRegular() {
			return true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}

// CheckFlake refuses a flake of this machine that was found and not named, if
// somebody else may have written it: Nix runs what is in it. named is what the user
// gave, or empty.
func CheckFlake(ref nix.Ref, named string) error {
	if ref.Dir == "" || names(named, ref.Dir) {
		return nil
	}
	f, err := trust.Caller(os.Getenv).Open(filepath.Join(ref.Dir, nix.FlakeFile))
	if foreign, ok := errors.AsType[*trust.Error](err); ok {
		return remedy.Add(fmt.Errorf("%w, and Nix would run what is in it", foreign), remedy.NameFlake, ref.Dir)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// names tells whether a reference to a flake is the path of that very directory,
// and not of one below it.
func names(text, dir string) bool {
	flake, _, _ := strings.Cut(text, "#")
	path, isURL := strings.CutPrefix(flake, "path:")
	if isURL { // Nix looks nowhere else
		return true
	}
	if flake == "" {
		return false
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return err == nil && real == dir
}
