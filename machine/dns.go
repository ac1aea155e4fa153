package machine

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
)

// dnsPatience is for a DNS server of the host's to answer a start, twice what one
// beyond a slow line takes. A person who asks by doctor waits longer.
const (
	dnsPatience    = time.Second
	doctorPatience = 3 * time.Second
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
	server, err := network.ParseResolver(text).ChooseDNS(ctx, dnsPatience, network.FromHere)
	if err != nil && ctx.Err() == nil {
		v.log.Warn("DNS", "err", err)
		v.report(api.Report{Note: err.Error()})
	}
	return server
}

func examineDNS(ctx context.Context) Finding {
	resolver, err := network.ReadResolver()
	var server string
	if err == nil {
		server, err = resolver.ChooseDNS(ctx, doctorPatience, network.FromHere)
	}
	if err != nil {
		return Finding{"dns", Limited, err.Error()}
	}
	return Finding{"dns", Good, fmt.Sprintf("guests ask %s, which answers", server)}
}
