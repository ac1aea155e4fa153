package assemble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/initrd"
	"github.com/sourcery-zone/sandbox/image/kernel"
)

// Names of an image's files in its directory, besides the manifest.
const (
	KernelFile = "kernel"
	InitrdFile = "initrd.img"
	StoreFile  = "store.erofs"
)

// Parts are what an image is made of besides the kernel and the store.
type Parts struct {
	// Manifest has everything about the image but its files. Its time of the
	// build is stamped on the initial RAM disk.
	Manifest image.Manifest
	// Setup is what only the agent has to know.
	Setup boot.Setup
	// Agent is the static program that becomes /init.
	Agent []byte
	// Modules are what initrd.Select has chosen for the kernel.
	Modules []initrd.Module
	// Note is told what takes a while; it may be nil.
	Note func(text string)
}

// Kernel writes a distribution's kernel into dir, in the form that boots fastest.
func Kernel(dir string, data []byte) error {
	plain, err := kernel.Plain(data)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, KernelFile), plain, 0o444)
}

// Image completes the image in dir, which holds its kernel and its store by
// their names, and returns the manifest that it has written there. An initial
// RAM disk or a manifest that is there already is an error. After an error dir
// holds no image, and is the caller's to remove.
func Image(ctx context.Context, dir string, p Parts) (image.Manifest, error) {
	m := p.Manifest
	if err := writeInitrd(filepath.Join(dir, InitrdFile), p); err != nil {
		return m, err
	}
	for _, f := range []struct {
		file *image.File
		name string
	}{{&m.Kernel, KernelFile}, {&m.Initrd, InitrdFile}, {&m.Store.File, StoreFile}} {
		if p.Note != nil {
			p.Note("computing the digest of " + f.name)
		}
		var err error
		if *f.file, err = image.Describe(ctx, dir, f.name); err != nil {
			return m, err
		}
	}
	data, err := m.Encode()
	if err != nil {
		return m, fmt.Errorf("these parts make no valid image: %w", err)
	}
	return m, create(filepath.Join(dir, image.ManifestFile), func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

func writeInitrd(name string, p Parts) error {
	return create(name, func(f *os.File) error {
		return initrd.Write(f, initrd.Contents{
			Agent: p.Agent, Image: p.Manifest.Boot(p.Setup), Modules: p.Modules, Time: p.Manifest.Provenance.Built,
		})
	})
}

// create writes a file that nobody is to change, through to the disk.
func create(name string, fill func(*os.File) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Sync(), f.Close())
}
