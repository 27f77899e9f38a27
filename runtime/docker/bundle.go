package docker

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// hostBundles is where distributions keep the certificates the host trusts.
var hostBundles = [...]string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch, Alpine
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/ssl/cert.pem",                                 // Alpine, BSD
}

// bundleVariables are what OpenSSL, Python's requests, pip, curl, Node, git,
// the AWS SDK, gRPC and conda read. Each names a file that replaces what the
// image trusts, so the bundle holds the host's certificates, too.
var bundleVariables = [...]string{
	"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
	"GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CONDA_SSL_VERIFY",
}

// bundleEnv tells programs of the trust bundle, where there is one.
func (b *Backend) bundleEnv() []string {
	if b.bundle == "" {
		return nil
	}
	env := make([]string, 0, len(bundleVariables))
	for _, name := range bundleVariables {
		env = append(env, name+"="+bundleInside)
	}
	return env
}

// writeBundle joins the host's certificates and the file's into one file of
// the state folder, named by its contents since running containers keep theirs.
func writeBundle(stateDir, file string) (string, error) {
	own, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read container CA: %w", err)
	}
	if err := checkPEM(own); err != nil {
		return "", fmt.Errorf("read container CA %s: %w", file, err)
	}
	var all bytes.Buffer
	for _, path := range hostBundles {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read the host's certificates: %w", err)
		}
		all.Write(data)
		all.WriteByte('\n')
		break
	}
	all.Write(own)
	sum := sha256.Sum256(all.Bytes())
	dir := filepath.Join(stateDir, "trust")
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("write trust bundle: %w", err)
	}
	path := filepath.Join(dir, hex.EncodeToString(sum[:8])+".pem")
	tmp := path + ".new"
	if err := os.WriteFile(tmp, all.Bytes(), 0o644); err != nil { // every user inside must read it
		return "", fmt.Errorf("write trust bundle: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("write trust bundle: %w", err)
	}
	return filepath.EvalSymlinks(path)
}

// checkPEM wants at least one certificate and nothing that is not one.
func checkPEM(data []byte) error {
	found := false
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("it holds a %s; only certificates belong in a trust bundle", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return errors.New("it holds no PEM certificate")
	}
	return nil
}
