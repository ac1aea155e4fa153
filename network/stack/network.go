package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/proxy"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/upstream"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// The addresses of a guest's network, which are those of QEMU's user network.
var (
	Guest   = netip.MustParseAddr("10.0.2.15")
	Gateway = netip.MustParseAddr("10.0.2.2") // the router and the DHCP server
	DNS     = netip.MustParseAddr("10.0.2.3")
)

// gatewayMAC stays the same for ever, so that a guest that was restored finds its router where it was.
const gatewayMAC = tcpip.LinkAddress("\x52\x55\x0a\x00\x02\x02")

const (
	prefixLength = 24
	nic          = tcpip.NICID(1)
)

// MaxMTU is the largest MTU: with it, whole packets have the length that fills the memory pages of a Linux guest.
const MaxMTU = 65520

// Config says what a Network is made of.
type Config struct {
	// Link is a connected Unix socket of datagrams, such as Pair makes. The Network owns it, and closes it.
	Link *os.File
	// MTU is what a packet has at most, in bytes. The guest is told by DHCP.
	MTU int
	// Policy decides what the guest may reach, unless Allow does.
	Policy *policy.Policy
	// Allow opens single names and addresses, in place of all that its Public does.
	Allow *policy.Allowlist
	// Upstream are the proxies by which the host reaches the Internet; none, if it is nil. What a name leads to is theirs
	// to find out then, so that it is judged by rules only that close addresses: see RuleAddressUnknown.
	Upstream *upstream.Proxies
	// HostPorts are services of the host's loopback that are open to the guest, at the router's address.
	HostPorts []network.HostPort
	// Proxy serves connections to hosts of which Allow opens some requests only, and to those of Read. The Network leaves it
	// open. Without it, there are no such rules and hosts before SetProxy.
	Proxy *proxy.Proxy
	// Read are hosts whose requests are read, whatever opens them. They open nothing, and other ports of theirs are as those
	// of other hosts. One may be all below a domain, as *.example.com.
	Read []secret.Host
	// IPv6 gives the guest an address of IPv6, and leads what it sends from there to the host's own. It is for hosts that
	// reach the Internet over it: see network.HasIPv6.
	IPv6 bool
	// Search are the domains that the guest appends to short names.
	Search []string
	// Card is the hardware address of the guest's card, if it is known. A guest that was restored may have another one until
	// it takes this one on.
	Card net.HardwareAddr
	// HostName is the guest's name, if it is to get one by DHCP.
	HostName string
	// Connections is how many connections there may be at once: DefaultConnections, if it is 0.
	// Those beyond are refused by a reset.
	Connections int
	// Log is called for each connection and lookup that ended or was refused. It must not block.
	Log func(Event)
	// Remedy returns a command that adds a rule, for the person whose sandbox the guest is in. Refusals name none if it is
	// nil.
	Remedy func(rule string) string
	// Logger gets what is of interest to the developer; nothing, if it is nil.
	Logger *slog.Logger

	// Ask is called when the user is to be asked whether the guest may connect to what no rule of Allow opens, and again
	// when the question has ended. It must not block. If it is nil, what no rule opens is refused at once.
	Ask func(Question)

	// Dial opens a connection of the host's: DialPolicy, if it is nil. The connections that it returns must be of
	// package net, as their descriptors are used.
	Dial func(ctx context.Context, network policy.Proto, address netip.AddrPort) (net.Conn, error)
	// Loopback connects to a port of the guest's own loopback, in another way than over this network. Nothing does, if it
	// is nil.
	Loopback func(ctx context.Context, port uint16) (HalfConn, error)
	// Resolver finds the addresses of names: Go's own, with what the host's /etc says, if it is nil.
	Resolver Resolver
	// Servers are the DNS servers for all that is not an address: those of the host, if it is nil.
	Servers func() ([]netip.AddrPort, error)

	openingTimeout time.Duration // openingTimeout, if it is 0
}

// DefaultConnections is how many TCP connections a guest may have at once.
const DefaultConnections = 1024

// ProtoDNS is the protocol of an Event that is a lookup.
const ProtoDNS = "dns"

// Event is one thing that a guest did, or was not allowed to do.
type Event struct {
	Time           time.Time // when it began
	Proto          string    // tcp, udp, icmp, ProtoDNS, or http for a request
	Request        string    // of HTTP that was refused: its method, and its path without a query
	Name           string    // that was asked for, as the guest wrote it, or for which the address was an answer
	Addr           netip.AddrPort
	Sent, Received int64 // bytes, seen from the guest
	Duration       time.Duration
	Allowed        bool
	Rule           string // what decided: a rule of package policy, or one of the constants below
}

// Rules that the Network adds to those of its policy.
const (
	RuleGateway    = "gateway" // the network's own addresses offer nothing else
	RulePolicyPage = "policy-page"
	RuleLimit      = "limit" // there are too many already
	RuleNoName     = "no-such-name"
	RuleSpelling   = "name-limit"  // names carry data, and there was much of it
	RuleHostCannot = "host-cannot" // the host's own system forbids it to the host
	RuleServerName = proxy.RuleServerName
	RuleHostHeader = proxy.RuleHostHeader

	// RuleNotLookedUp is for a name that no rule opens, and that has an address of NameAddresses all the same, so that a
	// connection to it is refused by name. Nobody was asked for it.
	RuleNotLookedUp = "not-looked-up"
	// RuleAddressUnknown is for an open name that is a proxy's to look up, where rules close addresses and the host does not
	// find out whether the name leads to them. They count more than what opens it.
	RuleAddressUnknown = "address-unknown"

	RuleOnce        = "once"         // the user has opened it for this time
	RuleNotAnswered = "not-answered" // the user has not said in time whether it is open
)

// Network is a guest's network.
type Network struct {
	config Config
	stack  *netstack.Stack
	link   *link
	filter filter          // is used by Serve only
	met    chan struct{}   // is closed when the guest has sent something
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	closed sync.Once

	rules atomic.Pointer[rules]
	proxy atomic.Pointer[proxy.Proxy] // nil: no requests are read
	asked asked

	mu      sync.Mutex
	held    map[*held]struct{}
	dialing map[netstack.TransportEndpointID]attempt
	tcp     int // connections, and attempts
	proxied int // those of them that the proxy has
	udp     int
	pings   map[pingID]*ping

	table          *nameTable // of names that stand for addresses
	names          names
	lookups        singleflight.Group
	proxyComplaint rate.Sometimes // as a guest can cause any number
	questions      chan struct{}  // as many as may be in flight
	spelling       *rate.Limiter  // bytes of names that were not known
	advertisements *rate.Limiter  // that a guest asks for
	web            *web
}

// New makes a network. It works while Serve runs.
func New(config Config) (_ *Network, err error) {
	if config.MTU < header.IPv4MinimumMTU || config.MTU > MaxMTU {
		return nil, fmt.Errorf("an MTU of %d is not between %d and %d", config.MTU, header.IPv4MinimumMTU, MaxMTU)
	}
	judging, err := rulesOf(config)
	if err != nil {
		return nil, err
	}
	if judging.requests() && config.Proxy == nil {
		return nil, errNoProxy
	}
	if config.Connections == 0 {
		config.Connections = DefaultConnections
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Log == nil {
		config.Log = func(Event) {}
	}
	if config.Resolver == nil {
		config.Resolver = &net.Resolver{PreferGo: true}
	}
	if config.openingTimeout == 0 {
		config.openingTimeout = openingTimeout
	}
	if config.Servers == nil {
		config.Servers = HostServers
	}
	n := &Network{
		config:         config,
		filter:         filter{mtu: config.MTU, card: tcpip.LinkAddress(config.Card), ipv6: config.IPv6, addresses: addresses6{}},
		met:            make(chan struct{}),
		asked:          asked{tell: config.Ask, open: map[string]*asking{}, granted: map[string]time.Time{}},
		held:           map[*held]struct{}{},
		dialing:        map[netstack.TransportEndpointID]attempt{},
		pings:          map[pingID]*ping{},
		table:          newNameTable(),
		proxyComplaint: rate.Sometimes{First: 1, Interval: time.Minute},
		questions:      make(chan struct{}, maxQuestions),
		spelling:       rate.NewLimiter(spellingRate, spellingBurst),
		advertisements: rate.NewLimiter(advertisementRate, advertisementBurst),
	}
	n.rules.Store(judging)
	n.proxy.Store(config.Proxy)
	n.table.pin(judging.hosts())
	n.web = newWeb(n)
	if n.link, err = newLink(config.Link, config.MTU, gatewayMAC, n.admit); err != nil {
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Network) start() error {
	options := netstack.Options{
		NetworkProtocols: []netstack.NetworkProtocolFactory{
			// What is for a loopback address is refused by the policy, with an answer, and not dropped.
			ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}),
			arp.NewProtocol,
		},
		TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	}
	if n.config.IPv6 {
		options.NetworkProtocols = append(options.NetworkProtocols, ipv6.NewProtocolWithOptions(ipv6.Options{AllowExternalLoopbackTraffic: true}))
		options.TransportProtocols = append(options.TransportProtocols, icmp.NewProtocol6)
	}
	n.stack = netstack.New(options)
	if err := n.setOptions(); err != nil {
		return err
	}
	if err := n.stack.CreateNIC(nic, n.link); err != nil {
		return fmt.Errorf("cannot make the network's interface: %s", err)
	}
	own := []netip.Prefix{netip.PrefixFrom(Gateway, prefixLength), netip.PrefixFrom(DNS, prefixLength)}
	if n.config.IPv6 {
		own = append(own, netip.PrefixFrom(Gateway6, Prefix6.Bits()))
	}
	for _, a := range own {
		err := n.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol:          protocolOf(a.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpipAddress(a.Addr()), PrefixLen: a.Bits()},
		}, netstack.AddressProperties{})
		if err != nil {
			return fmt.Errorf("cannot give the network the address %s: %s", a.Addr(), err)
		}
	}
	// The stack is every host of the Internet: it takes packets for all addresses, and answers from them.
	n.stack.SetPromiscuousMode(nic, true)
	n.stack.SetSpoofing(nic, true)
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})

	// A buffer may grow at once. What was offered of a larger one is not taken back, and what comes then is lost.
	forwarder := tcp.NewForwarder(n.stack, leastReceiveBuffer, n.config.Connections, n.connect)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, func(id netstack.TransportEndpointID, pkt *netstack.PacketBuffer) bool {
		return n.handleTCP(id, pkt, forwarder)
	})
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, n.handleUDP)
	n.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, n.handleICMP)
	if n.config.IPv6 {
		n.stack.SetTransportProtocolHandler(icmp.ProtocolNumber6, n.handleICMP)
		n.link.answer = n.answerSolicitation
		go n.advertiseAlways()
	}
	if err := n.serveDHCP(); err != nil {
		return fmt.Errorf("cannot start the network's DHCP server: %w", err)
	}
	if err := n.serveDNS(); err != nil {
		return fmt.Errorf("cannot start the network's DNS server: %w", err)
	}
	go n.web.serve()
	return nil
}

// Options of TCP towards the guest.
const (
	// A guest that is paused answers nothing for as long as its user likes, and goes on at once afterwards: so
	// segments are sent again for ever, and often. How many can be waiting is bounded elsewhere.
	maxRTO     = 2 * time.Second
	maxRetries = 1 << 30
	// The link does not send twice and changes no order, which is what TIME-WAIT guards against.
	timeWait = time.Second

	// receiveBuffer and sendBuffer are what a connection has in each direction, in bytes, while there are few; see
	// buffers.
	receiveBuffer = perWindow * sendBuffer
	sendBuffer    = 512 << 10
	// perWindow is how much of a buffer the stack needs to offer a window of one byte: the rest is for what is around small
	// segments.
	perWindow = 2
	// leastBuffer holds two whole packets: with less, a sender waits for each to be acknowledged.
	leastBuffer = 2 * (MaxMTU + 1)
	// leastReceiveBuffer offers a window of nearly two packets, and of one while another one waits. With a buffer of four, what
	// is offered beside two that wait is a few bytes less than one, and the stack does not say when it is more.
	leastReceiveBuffer = 7 * (MaxMTU + 1) / 2
)

func (n *Network) setOptions() error {
	sack := tcpip.TCPSACKEnabled(true)
	// What the guest reads at its own pace would grow the buffers of a thousand connections to gigabytes.
	moderate := tcpip.TCPModerateReceiveBufferOption(false)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: receiveBuffer, Max: receiveBuffer}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: sendBuffer, Max: sendBuffer}
	rto := tcpip.TCPMaxRTOOption(maxRTO)
	retries := tcpip.TCPMaxRetriesOption(maxRetries)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rcv, &snd, &rto, &retries, &wait} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("cannot set the option %T: %s", option, err)
		}
	}
	// A limit would turn a refusal into silence, and there is nobody to protect: they go to the guest only.
	n.stack.SetICMPLimit(rate.Inf)
	return nil
}

// Serve takes the guest's frames until ctx or the network ends, or nobody has the link's other end any more.
func (n *Network) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { n.Close() })
	defer stop()
	err := n.link.serve()
	n.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// admit keeps frames that are not the guest's own from the stack.
func (n *Network) admit(frame []byte) bool {
	taken := n.filter.take(frame)
	if guest, peer := n.filter.guest, n.link.peer.Load(); guest != "" && (peer == nil || *peer != guest) {
		n.link.peer.Store(&guest)
		if peer == nil {
			close(n.met)
		}
	}
	if !taken && !n.config.IPv6 {
		n.withdraw(frame)
	}
	return taken
}

// meet waits until the guest has sent something. One that was restored may have no reason to, so it is asked for its
// hardware address, and so is a fork that has sent something before it took on its own: it hears no other.
func (n *Network) meet(ctx context.Context) error {
	again := time.NewTicker(250 * time.Millisecond) // as it may be about to start
	defer again.Stop()
	for {
		known, current := n.knowsGuest()
		if current {
			return nil
		}
		if err := n.askForGuest(); err != nil || known {
			return err
		}
		select {
		case <-n.met:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// knowsGuest tells whether a hardware address of the guest is known, and whether that is the one which it keeps.
func (n *Network) knowsGuest() (known, current bool) {
	peer := n.link.peer.Load()
	return peer != nil, peer != nil && (len(n.config.Card) == 0 || *peer == tcpip.LinkAddress(n.config.Card))
}

func (n *Network) askForGuest() error {
	request := make(header.ARP, header.ARPSize)
	request.SetIPv4OverEthernet()
	request.SetOp(header.ARPRequest)
	copy(request.HardwareAddressSender(), gatewayMAC)
	copy(request.ProtocolAddressSender(), Gateway.AsSlice())
	copy(request.ProtocolAddressTarget(), Guest.AsSlice())
	if err := n.stack.WritePacketToRemote(nic, broadcastMAC, header.ARPProtocolNumber, buffer.MakeWithData(request)); err != nil {
		return errors.New(err.String())
	}
	return nil
}

// Close ends the network and all that goes over it.
func (n *Network) Close() error {
	var err error
	n.closed.Do(func() {
		n.cancel()
		err = n.link.shut()
		if n.stack != nil {
			n.stack.Close()
		}
	})
	return err
}

// Dropped returns how many frames of the guest's were not taken because they were not from its addresses, or no
// frames of this network, and how many for the guest were lost because it did not take them.
func (n *Network) Dropped() (received, sent uint64) {
	return n.link.refused.Load(), n.link.dropped.Load()
}

func (n *Network) event(e Event, began time.Time) {
	e.Time, e.Duration = began, time.Since(began)
	if e.Name == "" {
		e.Name = n.names.of(e.Addr.Addr())
	}
	if !e.Allowed {
		n.web.note(e)
	}
	n.config.Log(e)
}

func (n *Network) refused(proto policy.Proto, a netip.AddrPort, name, rule string) {
	n.event(Event{Proto: string(proto), Addr: a, Name: name, Rule: rule}, time.Now())
}

// reject answers a packet with an error. The packet must have its headers.
func (n *Network) reject(pkt *netstack.PacketBuffer, how netstack.RejectIPv4WithICMPType) {
	// A port is refused by its host, and all else by the router, which guests believe for any address.
	byHost := how == netstack.RejectIPv4WithICMPPortUnreachable
	var err tcpip.Error
	switch p := n.stack.NetworkProtocolInstance(pkt.NetworkProtocolNumber).(type) {
	case netstack.RejectIPv4WithHandler:
		err = p.SendRejectionError(pkt, how, byHost)
	case netstack.RejectIPv6WithHandler:
		err = p.SendRejectionError(pkt, reject6[how], byHost)
	}
	if err != nil {
		n.config.Logger.Debug("a packet's refusal could not be sent", "err", err)
	}
}

// reject6 are the errors of ICMPv6 that say what those of ICMP do.
var reject6 = map[netstack.RejectIPv4WithICMPType]netstack.RejectIPv6WithICMPType{
	netstack.RejectIPv4WithICMPAdminProhibited: netstack.RejectIPv6WithICMPAdminProhibited,
	netstack.RejectIPv4WithICMPNetUnreachable:  netstack.RejectIPv6WithICMPNoRoute,
	netstack.RejectIPv4WithICMPHostUnreachable: netstack.RejectIPv6WithICMPAddrUnreachable,
	netstack.RejectIPv4WithICMPPortUnreachable: netstack.RejectIPv6WithICMPPortUnreachable,
}

func tcpipAddress(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func destination(id netstack.TransportEndpointID) netip.AddrPort {
	a, _ := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	return netip.AddrPortFrom(a, id.LocalPort)
}

// ours tells whether an address is one of the network's own, which lead nowhere.
func ours(a netip.Addr) bool { return a == Gateway || a == DNS || a == Gateway6 }
