//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/tree"
)

// ErrNoMode is for arguments that are none of [agent.TransferArgs].
var ErrNoMode = errors.New("no such mode")

// Transfer is the guest's side of a copy: it packs or unpacks what the arguments
// name, with the rights of the process that it runs in. What is left out is
// noted on notes.
func Transfer(ctx context.Context, args []string, in io.Reader, out, notes io.Writer) error {
	rules := tree.Rules{Guest: true}
	leftOut := func(path string) {
		fmt.Fprintf(notes, "%s is no file, directory or link, and is left out\n", path)
	}
	var mode string
	if len(args) > 0 {
		mode, args = args[0], args[1:]
	}
	switch {
	case (mode == agent.TransferSend || mode == agent.TransferSendArchive) && len(args) == 2:
		return tree.Pack(ctx, out, args[0], args[1], tree.PackOptions{Rules: rules, Archive: mode == agent.TransferSendArchive, LeftOut: leftOut})
	case mode == agent.TransferReceive && len(args) == 2:
		return tree.Unpack(ctx, in, args[1], args[0], tree.UnpackOptions{Rules: rules, LeftOut: leftOut})
	case mode == agent.TransferReceiveArchive && len(args) == 1:
		return tree.UnpackArchive(ctx, in, args[0], tree.UnpackOptions{Rules: rules, LeftOut: leftOut})
	}
	return ErrNoMode
}
