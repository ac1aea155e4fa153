package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// HostSystem is the system of images that this machine runs without emulation.
func HostSystem() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64-linux"
	case "arm64":
		return "aarch64-linux"
	}
	return runtime.GOARCH + "-linux"
}

func (s *Store) defaultPath(system string) string {
	name := defaultFile
	if system != HostSystem() {
		name += "-" + system
	}
	return filepath.Join(s.dir, name)
}

// GetFor is Get for a guest of the given system, such as "aarch64-linux": ""
// means the default image of that system, and an image of another one is an
// error.
func (s *Store) GetFor(system, ref string) (*Image, error) {
	if ref == "" {
		var err error
		if ref, err = s.Default(system); err != nil {
			return nil, err
		}
	}
	img, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	if img.Manifest.System != system {
		return nil, remedy.Add(fmt.Errorf("the image %s is for %s, and the guest is to be %s", img.Ref(), img.Manifest.System, system), remedy.OtherImage)
	}
	return img, nil
}

// Default is the reference of the default image of a system: what SetDefault
// was given, or the only name that there is for the system.
func (s *Store) Default(system string) (string, error) {
	data, err := os.ReadFile(s.defaultPath(system))
	if err == nil {
		ref := strings.TrimSpace(string(data))
		if _, err := s.find(ref); err == nil {
			return ref, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the default image: %w", err)
	}
	images, err := s.List()
	if err != nil {
		return "", err
	}
	var names []string
	for _, img := range images {
		// A damaged image may not tell its system, and must not be passed
		// over in silence.
		if img.Manifest.System == system || img.Manifest.System == "" {
			names = append(names, img.Manifest.Name)
		}
	}
	names = slices.Compact(names)
	switch len(names) {
	case 0:
		if system == HostSystem() {
			return "", remedy.Add(errors.New("there is no image yet"), remedy.BuildImage)
		}
		arch, _, _ := strings.Cut(system, "-")
		return "", remedy.Add(fmt.Errorf("there is no image for %s yet", system), remedy.BuildForeign, arch)
	case 1:
		return names[0], nil
	default:
		return "", remedy.Add(fmt.Errorf("there is no default image, but there are %s", strings.Join(names, ", ")), remedy.ChooseImage)
	}
}

// isDefault tells whether img is the default image of its system.
func (s *Store) isDefault(img *Image) bool {
	standard, err := s.GetFor(img.Manifest.System, "")
	return err == nil && standard.Dir == img.Dir
}
