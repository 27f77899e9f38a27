package daemon

import (
	"crypto/x509"
	"fmt"
	"os"
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
