package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// KeysSocket is the path, in the guest, of the socket of [Client.LendKeys], for
// SSH_AUTH_SOCK in [BootConfig.Environment].
const KeysSocket = wire.KeysSocket

// GPGSocket is the path, in the guest, of the socket of [Client.LendGPGKeys].
const GPGSocket = wire.GPGSocket

// maxKeysConnections bounds the connections that the guest may have to a
// socket of keys at the same time: each costs memory here.
const maxKeysConnections = 16

// LendKeys lets programs of the guest's user speak with an agent of keys of the
// host, at [KeysSocket] until the connection to the guest ends: serve is called
// for each of their connections. It can be called once, after [StageAgent], and
// takes the socket over from an earlier client's.
func (c *Client) LendKeys(ctx context.Context, serve func(context.Context, io.ReadWriter)) error {
	return c.lend(ctx, FeatureKeys, wire.ChannelAgent, wire.RequestKeysSocket, serve)
}

// LendGPGKeys is as LendKeys, for an agent that speaks as gpg-agent does, at
// [GPGSocket].
func (c *Client) LendGPGKeys(ctx context.Context, serve func(context.Context, io.ReadWriter)) error {
	return c.lend(ctx, FeatureGPGKeys, wire.ChannelGPG, wire.RequestGPGSocket, serve)
}

func (c *Client) lend(ctx context.Context, feature Feature, channel, request string, serve func(context.Context, io.ReadWriter)) error {
	if err := c.Require(ctx, feature); err != nil {
		return err
	}
	offers := c.ssh.HandleChannelOpen(channel)
	if offers == nil {
		return errors.New("keys are lent to the guest already")
	}
	go c.serveKeys(offers, serve)
	err := within(ctx, func() error {
		accepted, _, err := c.ssh.SendRequest(request, true, nil)
		if err == nil && !accepted {
			err = errors.New("its agent refuses")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("keys cannot be lent to the guest: %w", c.explain(err))
	}
	return nil
}

// serveKeys answers the connections of the guest's programs until the connection
// to the guest ends.
func (c *Client) serveKeys(offers <-chan ssh.NewChannel, serve func(context.Context, io.ReadWriter)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slots := make(chan struct{}, maxKeysConnections)
	for offered := range offers {
		select {
		case slots <- struct{}{}:
		default:
			_ = offered.Reject(ssh.ResourceShortage, fmt.Sprintf("%d connections are open already", maxKeysConnections))
			continue
		}
		go func() {
			defer func() { <-slots }()
			channel, requests, err := offered.Accept()
			if err != nil {
				return
			}
			defer channel.Close()
			go ssh.DiscardRequests(requests)
			serve(ctx, channel)
		}()
	}
}
