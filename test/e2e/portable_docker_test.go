//go:build docker

package e2e

import "testing"

// TestPortableDocker does the same with containers, their image travelling along.
func TestPortableDocker(t *testing.T) {
	portable(t, "skiffdev/busybox:1", []string{"--images"}, "--runtime", "docker")
}
