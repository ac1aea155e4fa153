package main

import (
	"context"
	"time"
)

// beside compares the image with another one, which the flag -beside names, both
// as their users see them: up to the end of a first command, and until the
// system is up. Without another image there is nothing to compare.
func beside(ctx context.Context, b *bench) ([]figure, error) {
	if b.beside == "" {
		return nil, nil
	}
	command := func(image string) func(context.Context) (time.Duration, error) {
		return b.whole("run", "--rm", "--image", image, "--", "true")
	}
	system := func(image string) func(context.Context) (time.Duration, error) {
		return func(ctx context.Context) (time.Duration, error) { return b.systemOf(ctx, "--image", image) }
	}
	var ours, theirs, ourSystem, theirSystem series
	for range b.repeat {
		for _, m := range []struct {
			take func(context.Context) (time.Duration, error)
			of   *series
		}{
			{command(b.img.Exact().String()), &ours},
			{command(b.beside), &theirs},
			{system(b.img.Exact().String()), &ourSystem},
			{system(b.beside), &theirSystem},
		} {
			took, err := measure(ctx, m.take)
			if err != nil {
				return nil, err
			}
			*m.of = append(*m.of, took)
		}
	}
	return []figure{
		ratio("beside-command", ours, theirs).with(1.3),
		ratio("beside-system", ourSystem, theirSystem).with(1.5),
	}, nil
}
