package address

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
)

// ErrForbidden is the class of what a Reach refuses. Its errors name what was
// asked for, and not what it was looked up to be: that is nobody's business.
var ErrForbidden = errors.New("forbidden address")

// Reach is how far the daemon goes for others.
type Reach int

// The reaches. Wherever there is one, the services of clouds that hand out
// credentials to whoever asks on the machine (169.254.169.254 and its like) lie
// outside, and so does all that is no single machine's address.
const (
	// Nowhere is the zero value.
	Nowhere Reach = iota
	// Internet is public addresses: not this machine, not its networks.
	Internet
	// Anywhere is this machine and its networks, too.
	Anywhere
)

// Allows reports why an address is out of reach, as ErrForbidden.
func (r Reach) Allows(ip netip.Addr) error {
	if r == Nowhere {
		return fmt.Errorf("nothing is fetched by address: %w", ErrForbidden)
	}
	if !ip.IsValid() || ip.Zone() != "" {
		return fmt.Errorf("it is no address of the internet: %w", ErrForbidden)
	}
	ip = ip.Unmap()
	switch {
	case metadata(ip):
		return fmt.Errorf("it is where a machine is told its credentials: %w", ErrForbidden)
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("it is no single machine's: %w", ErrForbidden)
	case r == Internet && !public(ip):
		return fmt.Errorf("it is on this machine or a private network: %w", ErrForbidden)
	}
	return nil
}

// Parse reads an address that the daemon may be sent to, as far as its text
// tells: http or https, a host, no user and no password. Its errors are
// ErrForbidden too, and name the address.
func (r Reach) Parse(text string) (*url.URL, error) {
	if r == Nowhere {
		return nil, fmt.Errorf("nothing is fetched by address: %w", ErrForbidden)
	}
	target, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%.200q is no address: %w", text, ErrForbidden)
	}
	if err := checkURL(target); err != nil {
		return nil, fmt.Errorf("%.200q: %w", text, err)
	}
	if ip, err := netip.ParseAddr(target.Hostname()); err == nil {
		if err := r.Allows(ip); err != nil {
			return nil, fmt.Errorf("%.200q: %w", text, err)
		}
	}
	return target, nil
}

// checkURL is what holds of every address on the way, redirects included.
func checkURL(target *url.URL) error {
	switch {
	case target.Scheme != "https" && target.Scheme != "http":
		return fmt.Errorf("want an http or https address: %w", ErrForbidden)
	case target.Hostname() == "":
		return fmt.Errorf("want an address with a host: %w", ErrForbidden)
	case target.User != nil:
		return fmt.Errorf("want an address without a user: %w", ErrForbidden)
	}
	return nil
}

// metadata reports whether an address is one at which clouds serve a machine's
// own credentials. Link-local ones are in no reach as a whole: nothing but such
// services is worth being fetched from there.
func metadata(ip netip.Addr) bool {
	if embedded, is := embeddedIPv4(ip); is {
		ip = embedded
	}
	if ip.IsLinkLocalUnicast() {
		return true
	}
	return slices.Contains([]netip.Addr{
		netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
		netip.MustParseAddr("168.63.129.16"),   // Azure; public by its digits
		netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
		netip.MustParseAddr("fd00:ec2::254"),   // AWS
		netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
		netip.MustParseAddr("fd00:42::42"),     // Scaleway
	}, ip)
}

// embeddedIPv4 is the address that an IPv6 one only carries: compatible,
// translated, through NAT64, or by 6to4.
func embeddedIPv4(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() {
		return ip, false
	}
	b := ip.As16()
	for _, network := range []string{"::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"} {
		if netip.MustParsePrefix(network).Contains(ip) {
			return netip.AddrFrom4([4]byte(b[12:])), true
		}
	}
	if netip.MustParsePrefix("2002::/16").Contains(ip) {
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return ip, false
}

// public reports whether an address is one of the internet.
func public(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	if ip.Is6() && !netip.MustParsePrefix("2000::/3").Contains(ip) {
		return false // nothing else of IPv6 has been given out
	}
	for _, network := range reserved() {
		if network.Contains(ip) {
			return false
		}
	}
	return true
}

// reserved are further networks that are nobody's on the internet, as the
// registries of special-purpose addresses (RFC 6890) list them, and those that
// carry an IPv4 address of somebody's choice.
func reserved() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // this network
		netip.MustParsePrefix("100.64.0.0/10"),   // shared by carriers
		netip.MustParsePrefix("192.0.0.0/24"),    // protocols
		netip.MustParsePrefix("192.0.2.0/24"),    // documents
		netip.MustParsePrefix("192.88.99.0/24"),  // relays of 6to4
		netip.MustParsePrefix("198.18.0.0/15"),   // measurements
		netip.MustParsePrefix("198.51.100.0/24"), // documents
		netip.MustParsePrefix("203.0.113.0/24"),  // documents
		netip.MustParsePrefix("240.0.0.0/4"),     // kept for later
		netip.MustParsePrefix("2001::/23"),       // protocols, Teredo among them
		netip.MustParsePrefix("2001:db8::/32"),   // documents
		netip.MustParsePrefix("2002::/16"),       // 6to4: holds an IPv4 address
		netip.MustParsePrefix("3fff::/20"),       // documents
	}
}
