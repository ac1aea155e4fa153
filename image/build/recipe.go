package build

import (
	"context"
	"os"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/debian"
)

// Recipe builds an image from Debian packages, and installs it. It does nothing if
// the image of that name is built from the same inputs, unless o.Force is set. Without
// a name it has RecipeName.
func Recipe(ctx context.Context, store *image.Store, o debian.Options) (Built, error) {
	if o.Name == "" {
		o.Name = RecipeName(o.Arch, o.Bare)
	}
	img, err := upToDate(store, o)
	if err != nil {
		return Built{}, err
	}
	if img != nil && !o.Force {
		return Built{Image: img, UpToDate: true}, nil
	}
	start := time.Now()
	dir, err := debian.Build(ctx, o)
	if err != nil {
		return Built{}, err
	}
	defer os.RemoveAll(dir)
	building := time.Since(start)
	img, err = Install(ctx, store, dir, o.Progress)
	return Built{Image: img, Building: building, Installing: time.Since(start) - building}, err
}

// upToDate finds the image that a build would make, or returns nil.
func upToDate(store *image.Store, o debian.Options) (*image.Image, error) {
	inputs, err := o.Inputs()
	if err != nil {
		return nil, err
	}
	agent, err := o.AgentDigest()
	if err != nil {
		return nil, err
	}
	images, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		p := img.Manifest.Provenance
		if img.Broken == nil && img.Manifest.Name == o.Name && p.Builder == debian.Builder && p.Inputs == inputs && p.AgentSHA == agent {
			return img, nil
		}
	}
	return nil, nil
}

// RecipeName is what the recipe's image is called, unless it is given a name: one for
// another architecture than this machine's, or a bare one, does not replace the
// usual one.
func RecipeName(arch string, bare bool) string {
	name := debian.Builder
	if bare {
		name += "-bare"
	}
	return name + foreign(arch)
}

// AgentFile is the name of the agent's program for guests of that architecture, as it
// is built beside ours.
func AgentFile(arch string) string { return "sandbox-agent" + foreign(arch) }

// foreign is the suffix of what is for another architecture than this machine's.
func foreign(arch string) string {
	if arch+"-linux" == image.HostSystem() {
		return ""
	}
	return "-" + arch
}
