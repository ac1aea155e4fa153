//go:build linux

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/internal/tree"
)

// ErrNoMode is for arguments that [RunSelf] does not know.
var ErrNoMode = errors.New("no such mode")

// RunSelf does what a [Server] starts its own program for, with the rights of
// the process that it runs in: SFTP, relative to the home, and the guest's side
// of a copy, relative to the working directory. The arguments are those behind
// the program's name. What a copy leaves out is noted on notes.
func RunSelf(ctx context.Context, args []string, in io.Reader, out io.WriteCloser, notes io.Writer) error {
	rules := tree.Rules{Guest: true}
	leftOut := func(path string) {
		fmt.Fprintf(notes, "%s is no file, directory or link, and is left out\n", path)
	}
	var mode string
	if len(args) > 0 {
		mode, args = args[0], args[1:]
	}
	switch {
	case mode == sftpMode && len(args) == 0:
		return serveSFTP(in, out, os.Getenv("HOME"))
	case (mode == wire.TransferSend || mode == wire.TransferSendArchive) && len(args) == 2:
		return tree.Pack(ctx, out, args[0], args[1], tree.PackOptions{Rules: rules, Archive: mode == wire.TransferSendArchive, LeftOut: leftOut})
	case mode == wire.TransferReceive && len(args) == 2:
		return tree.Unpack(ctx, in, args[1], args[0], tree.UnpackOptions{Rules: rules, LeftOut: leftOut})
	case mode == wire.TransferReceiveArchive && len(args) == 1:
		return tree.UnpackArchive(ctx, in, args[0], tree.UnpackOptions{Rules: rules, LeftOut: leftOut})
	}
	return ErrNoMode
}
