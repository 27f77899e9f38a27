package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Files below the state folder's tls folder.
const (
	TLSDir = "tls"
	CAFile = "ca.crt"

	caKeyFile   = "ca.key"
	leafFile    = "server.crt"
	leafKeyFile = "server.key"
)

const (
	// caLife is ten years: whoever trusts the authority does it once.
	caLife = 10 * 365 * 24 * time.Hour
	// leafLife is the longest that common clients accept of a leaf.
	leafLife = 825 * 24 * time.Hour
	// leafRenewal is how long before its end a leaf is made anew at start.
	leafRenewal = 30 * 24 * time.Hour
	// clockSlack lets a client whose clock is behind accept a new certificate.
	clockSlack = time.Hour
)

// TLSConfig returns the server's configuration for a state folder, with a
// certificate for the loopback names and the hosts given. The authority is made
// once, the leaf again where it ends soon or a host is new.
func TLSConfig(stateDir string, now time.Time, hosts ...string) (*tls.Config, error) {
	dir := filepath.Join(stateDir, TLSDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for certificates: %w", err)
	}
	names := append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	leaf, err := loadLeaf(dir, now, names)
	if err != nil {
		authority, err := ensureCA(dir, now)
		if err != nil {
			return nil, err
		}
		if leaf, err = makeLeaf(dir, authority, now, names); err != nil {
			return nil, err
		}
	}
	return &tls.Config{
		Certificates: []tls.Certificate{leaf},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}

func loadLeaf(dir string, now time.Time, names []string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, leafFile), filepath.Join(dir, leafKeyFile))
	if err != nil {
		return pair, fmt.Errorf("load the server's certificate: %w", err)
	}
	authority, err := loadCA(dir)
	if err != nil {
		return pair, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(leafRenewal)}); err != nil {
		return pair, fmt.Errorf("renew the server's certificate: %w", err)
	}
	for _, name := range names {
		if name != "" && pair.Leaf.VerifyHostname(name) != nil {
			return pair, fmt.Errorf("renew the server's certificate for %s", name)
		}
	}
	return pair, nil
}

func loadCA(dir string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CAFile), filepath.Join(dir, caKeyFile))
	if err != nil {
		return pair, fmt.Errorf("load the certificate authority: %w", err)
	}
	return pair, nil
}

func ensureCA(dir string, now time.Time) (tls.Certificate, error) {
	authority, err := loadCA(dir)
	if err == nil && now.Add(leafLife).Before(authority.Leaf.NotAfter) {
		return authority, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return authority, fmt.Errorf("%w; delete %s to have a new one made", err, dir)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "skiff local authority"},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return issue(dir, CAFile, caKeyFile, template, nil)
}

func makeLeaf(dir string, authority tls.Certificate, now time.Time, names []string) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "skiff"},
		NotBefore:   now.Add(-clockSlack),
		NotAfter:    now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" && !slices.Contains(template.DNSNames, name) {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return issue(dir, leafFile, leafKeyFile, template, &authority)
}

// issue makes a key and a certificate signed by the authority, or by itself
// where there is none, and keeps both.
func issue(dir, certFile, keyFile string, template *x509.Certificate, authority *tls.Certificate) (tls.Certificate, error) {
	fail := func(err error) (tls.Certificate, error) {
		return tls.Certificate{}, fmt.Errorf("make %s: %w", filepath.Join(dir, certFile), err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return fail(err)
	}
	parent, signer := template, any(key)
	if authority != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fail(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	// The key goes first: a certificate without its key would not load, a key
	// without its certificate is made anew.
	if err := replaceFile(filepath.Join(dir, keyFile), "PRIVATE KEY", keyDER, 0o600); err != nil {
		return fail(err)
	}
	if err := replaceFile(filepath.Join(dir, certFile), "CERTIFICATE", der, 0o644); err != nil {
		return fail(err)
	}
	return tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
}

func replaceFile(path, blockType string, der []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	err = pem.Encode(temp, &pem.Block{Type: blockType, Bytes: der})
	if err == nil {
		err = temp.Chmod(mode)
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
