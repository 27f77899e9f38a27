package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

const (
	// hubDomain is how references name Docker Hub, hubServer how credentials do.
	hubDomain = "docker.io"
	hubServer = "https://index.docker.io/v1/"
	// helperTimeout is how long a credential helper may take; some ask a cloud.
	helperTimeout = 20 * time.Second
)

// credentials are for one registry.
type credentials struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
}

// dockerConfig is the part of a docker config.json that is read.
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

// auth returns the X-Registry-Auth value for a registry, empty where none is
// known. Credentials go to the registry they were given for and to no other;
// those of the request come before the machine's.
func (i *images) auth(ctx context.Context, domain string, auths map[string]string) (string, error) {
	for server, secret := range auths {
		if registryHost(server) != registryHost(domain) {
			continue
		}
		c, err := decodeBasic(secret)
		if err != nil {
			return "", fmt.Errorf("read credentials for %s: %w", domain, err)
		}
		return encodeAuth(c, domain)
	}
	c, ok, err := configAuth(ctx, i.config, domain)
	if err != nil || !ok {
		return "", err
	}
	return encodeAuth(c, domain)
}

// registryHost reduces the many ways to name a registry ("https://host/v1/",
// "host:5000") to host and port.
func registryHost(server string) string {
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	server, _, _ = strings.Cut(server, "/")
	switch server = strings.ToLower(server); server {
	case "index.docker.io", "registry-1.docker.io":
		return hubDomain
	}
	return server
}

// decodeBasic reads base64 of "user:password". The secret never appears in an error.
func decodeBasic(secret string) (credentials, error) {
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(secret))
	user, password, ok := strings.Cut(strings.TrimRight(string(text), "\x00"), ":")
	if err != nil || !ok || user == "" {
		return credentials{}, errors.New("they are not base64 of user:password")
	}
	return credentials{Username: user, Password: password}, nil
}

func encodeAuth(c credentials, domain string) (string, error) {
	c.ServerAddress = domain
	if domain == hubDomain {
		c.ServerAddress = hubServer
	}
	data, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode credentials for %s: %w", domain, err)
	}
	return base64.URLEncoding.EncodeToString(data), nil
}

// configAuth looks into docker's configuration: a helper for the registry, then
// the general store, then what is written there itself.
func configAuth(ctx context.Context, path, domain string) (credentials, bool, error) {
	if path == "" {
		return credentials{}, false, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return credentials{}, false, nil
	}
	var config dockerConfig
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		return credentials{}, false, fmt.Errorf("read registry credentials from %s: %w", path, err)
	}
	for server, helper := range config.CredHelpers {
		if registryHost(server) == registryHost(domain) {
			return runHelper(ctx, helper, server)
		}
	}
	for server, a := range config.Auths {
		if registryHost(server) != registryHost(domain) {
			continue
		}
		if config.CredsStore != "" && a.Auth == "" && a.IdentityToken == "" {
			return runHelper(ctx, config.CredsStore, server)
		}
		c := credentials{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}
		if a.Auth != "" {
			basic, err := decodeBasic(a.Auth)
			if err != nil {
				return c, false, fmt.Errorf("read registry credentials for %s from %s: %w", server, path, err)
			}
			c.Username, c.Password = basic.Username, basic.Password
		}
		return c, true, nil
	}
	return credentials{}, false, nil
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// runHelper asks a docker-credential program. One that knows nothing is no
// error: the pull then goes without.
func runHelper(ctx context.Context, helper, server string) (credentials, bool, error) {
	if !helperName.MatchString(helper) {
		return credentials{}, false, fmt.Errorf("credential helper %q is not a program's name", helper)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	out, err := cmd.Output()
	if err != nil {
		if bytes.Contains(out, []byte("credentials not found")) {
			return credentials{}, false, nil
		}
		return credentials{}, false, fmt.Errorf("ask docker-credential-%s for %s: %w", helper, server, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return credentials{}, false, fmt.Errorf("ask docker-credential-%s for %s: its answer is not JSON", helper, server)
	}
	if answer.Username == "<token>" {
		return credentials{IdentityToken: answer.Secret}, true, nil
	}
	return credentials{Username: answer.Username, Password: answer.Secret}, true, nil
}
