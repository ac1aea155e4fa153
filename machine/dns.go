package machine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/network"
)

// dnsPatience is for a DNS server of the host's to answer a start, twice what one
// beyond a slow line takes. A person who asks by doctor waits longer.
const (
	dnsPatience    = time.Second
	doctorPatience = 3 * time.Second
)

// chooseDNS decides what the guest is told about names. It waits for servers only
// where there are several to choose from; of what is wrong with the only one, the
// user hears when it is known, if the start lasts as long.
func (v *supervisor) chooseDNS(ctx context.Context) {
	resolver, err := network.ReadResolver()
	if err != nil {
		v.log.Warn("what this machine's DNS is cannot be read", "err", err)
		return
	}
	v.search = resolver.SearchDomains()
	choose := func() network.Chosen {
		chosen := resolver.ChooseDNS(ctx, dnsPatience, network.FromHere)
		if chosen.Err != nil && ctx.Err() == nil {
			v.report(report{Note: chosen.Err.Error()})
		}
		return chosen
	}
	if !resolver.HasChoice() {
		go choose()
		return
	}
	if chosen := choose(); chosen.Server.IsValid() {
		v.dns = chosen.Server.String()
		v.log.Info("the guest is told a DNS server that answers, in place of the first one", "server", v.dns)
	}
}

func examineDNS(ctx context.Context) Finding {
	resolver, err := network.ReadResolver()
	if err != nil {
		return Finding{"dns", Limited, fmt.Sprintf("%s cannot be read: %v", network.ResolverFile, err)}
	}
	chosen := resolver.ChooseDNS(ctx, doctorPatience, network.FromHere)
	switch {
	case chosen.Err != nil:
		return Finding{"dns", Limited, chosen.Err.Error()}
	case chosen.Server.IsValid():
		return Finding{"dns", Good, fmt.Sprintf("guests use %s, which answers, and not the first server of %s", chosen.Server, network.ResolverFile)}
	}
	return Finding{"dns", Good, fmt.Sprintf("this machine's server answers (%s)", strings.Join(resolver.Servers, ", "))}
}
