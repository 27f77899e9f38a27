package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// checkCA refuses a bundle that is none, before anything is started with it.
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

// hostBundles are where distributions keep what the machine trusts.
func hostBundles() []string {
	return []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}
}

// processTrust gives steps that are processes of this machine what the Docker
// runtime mounts into containers: the machine's authorities and the given ones
// in one file, and the variables by which OpenSSL, Python, pip, curl, Node, git
// and the AWS SDKs find it.
func (c *Config) processTrust() (env, visible []string, err error) {
	if c.ContainerCA == "" {
		return nil, nil, nil
	}
	var all []byte
	for _, path := range hostBundles() {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the machine's certificate authorities: %w", err)
		}
		all = append(content, '\n')
		break
	}
	own, err := os.ReadFile(c.ContainerCA)
	if err != nil {
		return nil, nil, fmt.Errorf("read the certificate authorities for containers: %w", err)
	}
	path := filepath.Join(c.StateDir, "trust", "process.pem")
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, nil, fmt.Errorf("keep the certificate authorities for containers: %w", err)
	}
	// Steps of an earlier daemon may be reading the file: it is replaced whole.
	if err := os.WriteFile(path+".new", append(all, own...), 0o644); err != nil {
		return nil, nil, fmt.Errorf("keep the certificate authorities for containers: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, nil, fmt.Errorf("keep the certificate authorities for containers: %w", err)
	}
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"} {
		env = append(env, name+"="+path)
	}
	return env, []string{path}, nil
}
