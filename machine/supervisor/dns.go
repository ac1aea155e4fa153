package supervisor

import (
	"context"
	"time"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
)

const (
	dnsPatience = time.Second
)

// learnSearchDomains reads in which domains the guest is to look for short names.
func (v *supervisor) learnSearchDomains() {
	resolver, err := network.ReadResolver()
	if err != nil {
		v.log.Warn("this machine's search domains cannot be read", "err", err)
		return
	}
	v.search = resolver.SearchDomains()
}

// chooseDNS returns the server of a resolv.conf(5) that is to be asked, or nothing
// where none answers. The user hears of that if the start still lasts.
func (v *supervisor) chooseDNS(ctx context.Context, text string) (server string) {
	server, err := network.ParseResolver(text).ChooseDNS(ctx, v.config.Network, dnsPatience, network.FromHere)
	if err != nil && ctx.Err() == nil {
		v.log.Warn("DNS", "err", err)
		v.report(api.Report{Note: err.Error()})
	}
	return server
}
