package address_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/skiff-ml/skiff/api/address"
)

// kinds of addresses, by who may be sent there.
const (
	publicIP  = "public"
	privateIP = "private"
	nobodysIP = "nobody's"
)

func TestAllows(t *testing.T) {
	for ip, kind := range map[string]string{
		"93.184.216.34": publicIP, "8.8.8.8": publicIP, "172.15.255.255": publicIP, "172.32.0.1": publicIP, "100.63.255.255": publicIP,
		"100.128.0.1": publicIP, "2606:4700::1111": publicIP, "::ffff:8.8.8.8": publicIP, "2620:fe::fe": publicIP,

		"127.0.0.1": privateIP, "127.255.255.254": privateIP, "::1": privateIP, "::ffff:127.0.0.1": privateIP,
		"10.0.0.1": privateIP, "172.16.0.1": privateIP, "172.31.255.255": privateIP, "192.168.1.1": privateIP, "::ffff:192.168.1.1": privateIP,
		"fd12:3456::1": privateIP, "fc00::1": privateIP, "100.64.0.1": privateIP, "100.127.255.254": privateIP,
		"0.1.2.3": privateIP, "192.0.0.8": privateIP, "192.0.2.1": privateIP, "198.18.0.1": privateIP, "198.51.100.7": privateIP, "203.0.113.9": privateIP,
		"240.0.0.1": privateIP, "fec0::1": privateIP, "100::1": privateIP, "2001:db8::1": privateIP, "2001::1": privateIP, "3fff::1": privateIP,
		// IPv4 within IPv6, whatever it holds.
		"::8.8.8.8": privateIP, "::10.0.0.1": privateIP, "64:ff9b::10.0.0.1": privateIP, "64:ff9b::8.8.8.8": privateIP, "2002:7f00:1::": privateIP,
		"::ffff:0:127.0.0.1": privateIP,

		"169.254.169.254": nobodysIP, "169.254.170.2": nobodysIP, "fe80::1": nobodysIP, "::ffff:169.254.169.254": nobodysIP, "100.100.100.200": nobodysIP,
		"168.63.129.16": nobodysIP, "192.0.0.192": nobodysIP, "fd00:ec2::254": nobodysIP, "fd20:ce::254": nobodysIP, "fd00:42::42": nobodysIP,
		"64:ff9b::169.254.169.254": nobodysIP, "64:ff9b::a83f:8110": nobodysIP, "2002:a9fe:a9fe::1": nobodysIP, "::169.254.169.254": nobodysIP,
		"::ffff:0:169.254.169.254": nobodysIP,
		"0.0.0.0":                  nobodysIP, "::": nobodysIP, "::ffff:0.0.0.0": nobodysIP, "255.255.255.255": nobodysIP, "224.0.0.1": nobodysIP, "ff02::1": nobodysIP,
		"fe80::1%eth0": nobodysIP, "2606:4700::1111%eth0": nobodysIP,
	} {
		addr := netip.MustParseAddr(ip)
		for reach, allowed := range map[address.Reach]bool{
			address.Nowhere:  false,
			address.Internet: kind == publicIP,
			address.Anywhere: kind != nobodysIP,
		} {
			err := reach.Allows(addr)
			if (err == nil) != allowed || (err != nil && !errors.Is(err, address.ErrForbidden)) {
				t.Errorf("%s (%s) from reach %d: %v", ip, kind, reach, err)
			}
		}
	}
	if address.Anywhere.Allows(netip.Addr{}) == nil {
		t.Error("no address at all is allowed")
	}
}

func TestParse(t *testing.T) {
	for text, allowed := range map[string]bool{
		"https://example.org/p.yaml": true, "http://example.org:8080/p?x=1#y": true, "HTTPS://EXAMPLE.org/": true, "https://[2606:4700::1111]/p": true,
		"": false, "example.org/p.yaml": false, "//example.org/p": false, "ftp://example.org/p": false, "file:///etc/passwd": false,
		"gopher://example.org/": false, "unix:///run/docker.sock": false, "data:text/yaml,a": false, "https:///p": false, "https://:443/p": false,
		"https:example.org": false, "https://user@example.org/p": false, "https://user:word@example.org/p": false, "https://exa mple.org": false,
		"https://example.org:port/": false, "http://[::1": false, "http://127.0.0.1/": false, "http://[::1]/": false, "http://[fe80::1%25eth0]/": false,
		"http://169.254.169.254/latest/meta-data": false, "http://10.0.0.1:9000/": false, "http://\x00/": false,
	} {
		target, err := address.Internet.Parse(text)
		if (err == nil) != allowed || (err == nil) != (target != nil) {
			t.Errorf("%q: %v, %v", text, target, err)
		}
		if err != nil && !errors.Is(err, address.ErrForbidden) {
			t.Errorf("%q: %v is not ErrForbidden", text, err)
		}
	}
	if _, err := address.Nowhere.Parse("https://example.org/"); !errors.Is(err, address.ErrForbidden) {
		t.Errorf("from nowhere: %v", err)
	}
}

// FuzzParse: what the text of an address lets by has what a client needs, and
// an address in digits is one that the reach allows.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"https://example.org/p.yaml", "http://127.0.0.1/", "http://[::ffff:7f00:1]:80/", "//x", "http://2130706433/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := address.Internet.Parse(text)
		if err != nil {
			return
		}
		if target.Hostname() == "" || target.User != nil || (target.Scheme != "http" && target.Scheme != "https") {
			t.Errorf("%q is let by as %v", text, target)
		}
		if ip, err := netip.ParseAddr(target.Hostname()); err == nil && address.Internet.Allows(ip) != nil {
			t.Errorf("%q is let by, and holds %v", text, ip)
		}
	})
}
