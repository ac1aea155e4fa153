package build

import (
	"context"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/progress"
)

// Built is an image that is in its store now.
type Built struct {
	*image.Image
	UpToDate             bool // it was there already, and nothing was built
	Building, Installing time.Duration
}

// Install copies the image in a directory into the store. The report may be nil.
func Install(ctx context.Context, store *image.Store, dir string, report *progress.Reporter) (*image.Image, error) {
	step := report.Start("installing the image", 0)
	defer step.Fail()
	img, err := store.Install(ctx, dir)
	if err == nil {
		step.Done()
	}
	return img, err
}
