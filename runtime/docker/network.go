package docker

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strings"
	"sync"

	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

const (
	networkNone   = "none"
	networkPrefix = "skiff-"
	labelNetwork  = "skiff.dev/namespace"
	// defaultNamespace is that of a container that names none.
	defaultNamespace = "default"
	// subnetPool is where networks go when the engine's own pools (about thirty
	// networks) are used up: 256 of /24.
	subnetPool  = "10.213.%d.0/24"
	subnetCount = 256
)

// networks makes the bridges of namespaces, each once.
type networks struct {
	api    dockerapi.API
	labels map[string]string
	mu     sync.Mutex
	// have are networks known to exist.
	have map[string]bool
	// note says what is wrong with networking here; for Capabilities.
	note string
}

// networkName is the bridge of a namespace.
func networkName(namespace string) string {
	if namespace == "" {
		namespace = defaultNamespace
	}
	return networkPrefix + namespace
}

// ensure returns the network's name once it exists. The lock is held over the
// engine's calls on purpose: two creations of one name make two networks.
func (n *networks) ensure(ctx context.Context, namespace string) (string, error) {
	name := networkName(namespace)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.have[name] {
		return name, nil
	}
	_, err := n.api.NetworkInspect(ctx, name)
	if dockerapi.IsNotFound(err) {
		err = n.create(ctx, name, namespace)
	}
	if err == nil {
		n.have[name] = true
		return name, nil
	}
	if dockerapi.IsUnavailable(err) || ctx.Err() != nil || name != networkName(defaultNamespace) {
		return "", fmt.Errorf("make network %s: %w", name, err)
	}
	return n.fallback(ctx, err), nil
}

// fallback serves the one namespace of a machine on which the engine cannot
// make bridges (a nested machine without a working firewall): its own default
// bridge, or else no network, which steps that need none do not notice. Other
// namespaces are refused: they were promised to be apart.
func (n *networks) fallback(ctx context.Context, cause error) string {
	name := networkNone
	if _, err := n.api.NetworkInspect(ctx, "bridge"); err == nil {
		name = "bridge"
	}
	n.note = fmt.Sprintf("the engine cannot make a network (%v); containers of the namespace %s use %q instead; see that iptables works on this machine",
		cause, defaultNamespace, name)
	return name
}

// problem is a sentence for doctor, or empty.
func (n *networks) problem() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.note
}

// forget makes the next ensure look again: somebody removed the network, or the
// engine was restarted.
func (n *networks) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.have)
}

func (n *networks) create(ctx context.Context, name, namespace string) error {
	labels := map[string]string{labelNetwork: namespace}
	maps.Copy(labels, n.labels)
	o := dockerapi.NetworkOptions{
		Driver:  "bridge",
		Options: map[string]string{"com.docker.network.bridge.enable_icc": "true"},
		Labels:  labels,
	}
	err := n.api.NetworkCreate(ctx, name, o)
	if err == nil || dockerapi.IsConflict(err) {
		return nil
	}
	if !poolExhausted(err) {
		return err
	}
	// The same namespace tries the same subnets first, so that addresses stay
	// what they were where they can.
	hash := fnv.New32a()
	hash.Write([]byte(name))
	first := int(hash.Sum32() % subnetCount)
	for i := range subnetCount {
		o.IPAM = &dockerapi.IPAM{Driver: "default", Config: []dockerapi.IPAMConfig{
			{Subnet: fmt.Sprintf(subnetPool, (first+i)%subnetCount)},
		}}
		err = n.api.NetworkCreate(ctx, name, o)
		if err == nil || dockerapi.IsConflict(err) {
			return nil
		}
		if !strings.Contains(err.Error(), "overlap") {
			return err
		}
	}
	return err
}

// poolExhausted: the engine has no class for it.
func poolExhausted(err error) bool {
	return strings.Contains(err.Error(), "non-overlapping") || strings.Contains(err.Error(), "predefined address pools")
}
