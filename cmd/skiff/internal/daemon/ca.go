package daemon

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/skiff-ml/skiff/runtime"
)

// caPath is where the bundle appears inside every container.
const caPath = "/etc/skiff/ca.crt"

// caVariables are what common clients read for a bundle that replaces their own:
// OpenSSL and Python, requests and pip, curl, Node, git, the AWS SDKs.
func caVariables() []string {
	return []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"}
}

func (c *Config) checkCA() error {
	if c.ContainerCA == "" {
		return nil
	}
	content, err := os.ReadFile(c.ContainerCA)
	if err != nil {
		return fmt.Errorf("--container-ca: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		return fmt.Errorf("--container-ca %s: there is no PEM certificate in it", c.ContainerCA)
	}
	return nil
}

// trustBundle copies the authorities into the state folder, so that what
// containers trust changes with a restart of the daemon and not under them, and
// returns what every container is given.
func (c *Config) trustBundle() (env []string, mounts []runtime.Mount, err error) {
	if c.ContainerCA == "" {
		return nil, nil, nil
	}
	content, err := os.ReadFile(c.ContainerCA)
	if err != nil {
		return nil, nil, fmt.Errorf("read the certificate authorities for containers: %w", err)
	}
	dir := filepath.Join(c.StateDir, "trust")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // public certificates
		return nil, nil, fmt.Errorf("keep the certificate authorities for containers: %w", err)
	}
	path := filepath.Join(dir, "ca.crt")
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o644); err != nil { //nolint:gosec // public certificates
		return nil, nil, fmt.Errorf("keep the certificate authorities for containers: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, nil, fmt.Errorf("keep the certificate authorities for containers: %w", err)
	}
	for _, name := range caVariables() {
		env = append(env, name+"="+caPath)
	}
	return env, []runtime.Mount{{HostPath: path, Path: caPath, ReadOnly: true}}, nil
}
