package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// settingsDir, in a pod's folder, holds the files of its secret and config map
// volumes. As every such folder it is emptied when the pod has ended.
const settingsDir = ".settings"

// setting is a Secret or a ConfigMap as a pod sees it: values by key.
type setting struct {
	data map[string][]byte
	err  error // of class store.ErrNotFound where it is not there
}

// setting reads a secret or a config map, once for a run of the pod: its
// containers see one state of it.
func (r *run) setting(ctx context.Context, kind, name string) (map[string][]byte, error) {
	key := store.Key{Kind: kind, Namespace: r.pod().Namespace, Name: name}
	r.mu.Lock()
	known, ok := r.settings[key]
	r.mu.Unlock()
	if ok {
		return known.data, known.err
	}
	var found setting
	obj, err := r.c.store.Get(ctx, key)
	switch obj := obj.(type) {
	case *core.Secret:
		found.data = obj.Data
	case *core.ConfigMap:
		found.data = maps.Clone(obj.BinaryData)
		for k, value := range obj.Data {
			if found.data == nil {
				found.data = make(map[string][]byte, len(obj.Data))
			}
			found.data[k] = []byte(value)
		}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("read %s %s: %w", settingTitle(kind), name, err)
	}
	if err != nil {
		found.err = fmt.Errorf("%s %q is not in namespace %s; make it (skiff %s create %s …) and run this again: %w",
			settingTitle(kind), name, key.Namespace, strings.ReplaceAll(settingTitle(kind), " ", ""), name, store.ErrNotFound)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settings == nil {
		r.settings = make(map[store.Key]setting)
	}
	r.settings[key] = found
	return found.data, found.err
}

func settingTitle(kind string) string {
	if kind == Secrets {
		return "secret"
	}
	return "config map"
}

// variables are a container's variables with their values looked up. What is
// optional and not there is left out.
func (r *run) variables(ctx context.Context, u *unit) ([]core.EnvVar, error) {
	c := u.container
	list := make([]core.EnvVar, 0, len(c.Env))
	for _, v := range c.Env {
		from := v.ValueFrom
		if from == nil {
			list = append(list, v)
			continue
		}
		value, there, err := r.lookUp(ctx, u, from)
		if err != nil {
			return nil, fmt.Errorf("container %s: env %s: %w", c.Name, v.Name, err)
		}
		if there {
			// A value is not text to expand $(NAME) in.
			list = append(list, core.EnvVar{Name: v.Name, Value: strings.ReplaceAll(value, "$", "$$")})
		}
	}
	return list, nil
}

func (r *run) lookUp(ctx context.Context, u *unit, from *core.EnvVarSource) (value string, there bool, err error) {
	var kind string
	var ref *core.KeySelector
	switch {
	case from.FieldRef != nil:
		value, err = r.field(u, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.SecretKeyRef != nil:
		kind, ref = Secrets, from.SecretKeyRef
	case from.ConfigMapKeyRef != nil:
		kind, ref = ConfigMaps, from.ConfigMapKeyRef
	default:
		return "", false, errors.New("valueFrom names no source")
	}
	optional := ref.Optional != nil && *ref.Optional
	data, err := r.setting(ctx, kind, ref.Name)
	if err != nil {
		if optional && errors.Is(err, store.ErrNotFound) {
			return "", false, nil
		}
		return "", false, err
	}
	text, there := data[ref.Key]
	switch {
	case !there && !optional:
		return "", false, fmt.Errorf("%s %q has no key %q; it has %q", settingTitle(kind), ref.Name, ref.Key, slices.Sorted(maps.Keys(data)))
	case strings.IndexByte(string(text), 0) >= 0:
		return "", false, fmt.Errorf("%s %q: the value of %q holds a NUL byte, which no variable can; mount it as a volume", settingTitle(kind), ref.Name, ref.Key)
	}
	return string(text), there, nil
}

// field is the value of a field of the pod, by the published paths.
func (r *run) field(u *unit, path string) (string, error) {
	p := r.pod()
	if group, key, ok := core.CutFieldPath(path); ok {
		switch group {
		case "metadata.labels":
			return p.Labels[key], nil
		case "metadata.annotations":
			return p.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return p.UID, nil
	case "spec.nodeName":
		return r.c.cfg.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return r.c.cfg.NodeIP, nil
	case "status.podIP", "status.podIPs":
		con, _ := r.state(u)
		if con.IP == "" {
			return r.c.cfg.NodeIP, nil // it shares the machine's network
		}
		return con.IP, nil
	}
	return "", core.CheckFieldPath(path)
}

// checkSettings makes sure that what a pod refers to is there, before its images
// are fetched. Containers that were made before have theirs. The error is an
// *ending or ctx's cause.
func (r *run) checkSettings(ctx context.Context) error {
	p := r.pod()
	for _, u := range r.units {
		if _, made := r.state(u); made {
			continue
		}
		_, err := r.variables(ctx, u)
		for _, vm := range u.container.VolumeMounts {
			for i := range p.Spec.Volumes {
				if v := &p.Spec.Volumes[i]; err == nil && v.Name == vm.Name && (v.Secret != nil || v.ConfigMap != nil) {
					_, err = r.settingFiles(ctx, v)
				}
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &ending{reason: ReasonConfig, message: err.Error()}
		}
	}
	return nil
}

// settingFiles are the files of a secret or config map volume; none where it is
// optional and not there.
func (r *run) settingFiles(ctx context.Context, v *core.Volume) (map[string][]byte, error) {
	kind, name, optional := Secrets, "", (*bool)(nil)
	if v.Secret != nil {
		name, optional = v.Secret.SecretName, v.Secret.Optional
	} else {
		kind, name, optional = ConfigMaps, v.ConfigMap.Name, v.ConfigMap.Optional
	}
	data, err := r.setting(ctx, kind, name)
	if errors.Is(err, store.ErrNotFound) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", v.Name, err)
	}
	return data, nil
}

// settingFolder writes a secret's or config map's files and returns their folder.
// Below the pods' folder, which only the daemon can enter, it is open to any
// user inside the container for reading.
func (r *run) settingFolder(ctx context.Context, v *core.Volume) (string, error) {
	if !isFolderName(v.Name) {
		return "", fmt.Errorf("%q is not a volume name", v.Name)
	}
	files, err := r.settingFiles(ctx, v)
	if err != nil {
		return "", err
	}
	parent := filepath.Join(r.dir, settingsDir)
	dir := filepath.Join(parent, v.Name)
	if err := makeFolder(parent, 0o711); err != nil {
		return "", err
	}
	if err := makeFolder(dir, 0o755); err != nil {
		return "", err
	}
	for key, value := range files {
		// The same bytes again, where another container mounts it, too: a file
		// that is there stays what it is for whoever has it mounted.
		path := filepath.Join(dir, key)
		if have, err := os.ReadFile(path); err == nil && string(have) == string(value) {
			continue
		}
		err := os.WriteFile(path, value, 0o644) // Any user of the container reads it; the folder above is closed.
		if err == nil {
			err = os.Chmod(path, 0o644) // whatever the umask
		}
		if err != nil {
			return "", fmt.Errorf("write the files of the volume: %w", err)
		}
	}
	return dir, nil
}

func makeFolder(dir string, mode os.FileMode) error {
	err := os.Mkdir(dir, mode)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(dir, mode) // whatever the umask
	}
	if err != nil {
		return fmt.Errorf("make the folder of the volume: %w", err)
	}
	return nil
}

// lookable refuses a shape of variable or volume that nothing can come of.
func lookable(spec *core.PodSpec) error {
	for _, list := range [][]core.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			for _, v := range list[i].Env {
				if v.ValueFrom == nil || v.ValueFrom.FieldRef == nil {
					continue
				}
				if err := core.CheckFieldPath(v.ValueFrom.FieldRef.FieldPath); err != nil {
					return fmt.Errorf("container %s: env %s: %w", list[i].Name, v.Name, err)
				}
			}
		}
	}
	return nil
}

// unmatched says which of the pod's wishes about nodes this one does not
// fulfil; empty where there is none. There is no other node, so the pod runs
// here all the same and the sentence is kept with it.
func (c *Controller) unmatched(p *core.Pod) string {
	labels := c.cfg.NodeLabels
	var missed []string
	for _, key := range slices.Sorted(maps.Keys(p.Spec.NodeSelector)) {
		if want := p.Spec.NodeSelector[key]; labels[key] != want {
			missed = append(missed, fmt.Sprintf("nodeSelector %s=%s", key, want))
		}
	}
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.Required != nil {
		fits := slices.ContainsFunc(a.NodeAffinity.Required.NodeSelectorTerms, func(t core.NodeSelectorTerm) bool {
			return t.Matches(c.cfg.NodeName, labels)
		})
		if !fits {
			missed = append(missed, "the required node affinity")
		}
	}
	if len(missed) == 0 {
		return ""
	}
	return fmt.Sprintf("this node lacks what the pod asks of one (%s); it is the only one, so the pod runs here", strings.Join(missed, ", "))
}

// nodeLabels are the labels that every node of the published API has.
func nodeLabels(name string) map[string]string {
	return map[string]string{
		"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": goruntime.GOARCH,
	}
}
