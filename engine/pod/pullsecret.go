package pod

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// registryEntry is a registry's entry in a docker config's "auths".
type registryEntry struct {
	Auth     string `json:"auth"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// pullAuths reads the registry credentials in a pod's imagePullSecrets (see
// runtime.ImageRequest), the first secret winning where two are for one
// registry. As on a cluster, a secret that is not there or holds none does not
// end the pod, since the image may be had without; missed says so, for the
// message where it may not.
func (c *Controller) pullAuths(ctx context.Context, p *core.Pod) (auths map[string]string, missed string, err error) {
	var notes []string
	for _, ref := range p.Spec.ImagePullSecrets {
		secret, err := store.GetAs[*core.Secret](ctx, c.store, store.Key{Kind: Secrets, Namespace: p.Namespace, Name: ref.Name})
		switch {
		case errors.Is(err, store.ErrNotFound):
			notes = append(notes, fmt.Sprintf("secret %s is not there", ref.Name))
			continue
		case ctx.Err() != nil:
			return nil, "", context.Cause(ctx)
		case err != nil:
			return nil, "", &ending{reason: ReasonConfig, message: fmt.Sprintf("imagePullSecrets: secret %s: %v", ref.Name, err)}
		}
		entries, err := registryEntries(secret)
		if err != nil {
			notes = append(notes, fmt.Sprintf("secret %s: %v", ref.Name, err))
			continue
		}
		for server, entry := range entries {
			if _, taken := auths[server]; taken {
				continue
			}
			if auths == nil {
				auths = make(map[string]string)
			}
			if entry.Auth == "" {
				entry.Auth = base64.StdEncoding.EncodeToString([]byte(entry.Username + ":" + entry.Password))
			}
			auths[server] = entry.Auth
		}
	}
	if len(notes) > 0 {
		missed = " (imagePullSecrets: " + strings.Join(notes, "; ") + ")"
	}
	return auths, missed, nil
}

// registryEntries are the registries that a secret opens. No value is part of
// an error.
func registryEntries(secret *core.Secret) (map[string]registryEntry, error) {
	var config struct {
		Auths map[string]registryEntry `json:"auths"`
	}
	var err error
	switch secret.SecretType {
	case core.SecretDockerConfigJSON:
		err = json.Unmarshal(secret.Data[core.DockerConfigJSONKey], &config)
	case core.SecretDockerConfig:
		err = json.Unmarshal(secret.Data[core.DockerConfigKey], &config.Auths)
	default:
		return nil, fmt.Errorf("its type %s holds no registry credentials; want %s", secret.SecretType, core.SecretDockerConfigJSON)
	}
	if err != nil {
		return nil, errors.New("its value is not a docker config")
	}
	return config.Auths, nil
}
