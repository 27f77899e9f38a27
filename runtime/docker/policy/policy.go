package policy

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// Capabilities are what a container's root keeps: Docker's own default set less
// NET_RAW (spoofing on the shared bridge), MKNOD (device nodes), AUDIT_WRITE,
// SETPCAP and SETFCAP, which no package manager and no su needs.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Capabilities returns the capabilities a container gets after all were dropped.
func Capabilities() []string { return slices.Clone(capabilities) }

// NoNewPrivileges is the one security option of every container.
const NoNewPrivileges = "no-new-privileges"

// Root is a host folder of which containers may see parts.
type Root struct {
	// Path is absolute. It is resolved when it is used, so it may be a link.
	Path string
	// ReadOnly forbids writable mounts below it.
	ReadOnly bool
	// Own marks skiff's folders inside its state directory (a pod's folder,
	// volumes, artifacts), which lie below a forbidden path.
	Own bool
}

// Rules are what holds for every container of one engine.
type Rules struct {
	// Roots may be mounted from; Files are single files that may be mounted
	// read-only (the launcher, the trust bundle).
	Roots []Root
	Files []string
	// Forbidden paths are never mounted, nor is anything above or below them,
	// except below a root of skiff's own.
	Forbidden []string
	// Sockets are the engine's; their inodes are refused under any name.
	Sockets []string
	// Entrypoint is the launcher's path inside.
	Entrypoint string
}

// Grant is what one container was given beyond the rules.
type Grant struct {
	// Roots are added to the rules' (the pod's own folder).
	Roots []Root
	// GPUs are the device ids that may be requested. Without any, no device
	// request and no runtime but the default one is allowed.
	GPUs []string
	// Runtime may be named, for devices by NVIDIA's own runtime.
	Runtime string
	// Network is the network's name.
	Network string
}

// check examines one non-zero field. v is the field's value.
type check func(k *checker, v reflect.Value) error

type checker struct {
	rules Rules
	grant Grant
	host  *dockerapi.HostConfig
	conf  *dockerapi.Config
}

// Check is an error that wraps runtime.ErrPolicy where the container must not be
// made; it names the field and what to do.
func (r Rules) Check(h *dockerapi.HostConfig, c *dockerapi.Config, g Grant) error {
	k := &checker{rules: r, grant: g, host: h, conf: c}
	if err := k.closed("HostConfig", reflect.ValueOf(h).Elem(), hostFields); err != nil {
		return err
	}
	if err := k.closed("Config", reflect.ValueOf(c).Elem(), configFields); err != nil {
		return err
	}
	return k.required()
}

// closed walks a struct: every field that is not zero must be listed.
func (k *checker) closed(path string, v reflect.Value, allowed map[string]check) error {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			if err := k.closed(path, v.Field(i), allowed); err != nil {
				return err
			}
			continue
		}
		if empty(v.Field(i)) {
			continue
		}
		name := path + "." + f.Name
		examine, ok := allowed[f.Name]
		if !ok {
			return refuse(name, fmt.Errorf("%v is not allowed", short(v.Field(i))), "leave it out: skiff sets what a container needs")
		}
		if examine == nil {
			continue
		}
		if err := examine(k, v.Field(i)); err != nil {
			if _, told := errors.AsType[*problem.Error](err); told {
				return err
			}
			return refuse(name, err, "")
		}
	}
	return nil
}

// empty counts an empty map or slice as not set: the engine does, too.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}

// short renders a value for an error without letting it fill the log.
func short(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	s := fmt.Sprintf("%v", v.Interface())
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

func refuse(field string, err error, hint string) error {
	return &problem.Error{Op: "check container", Field: field, Err: fmt.Errorf("%w: %w", runtime.ErrPolicy, err), Hint: hint}
}

// required holds what must be there, whatever else is.
func (k *checker) required() error {
	h, c := k.host, k.conf
	switch {
	case !slices.Equal(h.CapDrop, []string{"ALL"}):
		return refuse("HostConfig.CapDrop", errors.New("all capabilities must be dropped first"), "")
	case !slices.Equal(h.SecurityOpt, []string{NoNewPrivileges}):
		return refuse("HostConfig.SecurityOpt", errors.New("no-new-privileges must be set"), "")
	case h.PidsLimit == nil:
		return refuse("HostConfig.PidsLimit", errors.New("there is no limit"), "")
	case h.Memory != h.MemorySwap:
		return refuse("HostConfig.MemorySwap", errors.New("it must equal the memory limit"), "")
	case h.Init == nil:
		return refuse("HostConfig.Init", errors.New("it must be false: the launcher is the first process"), "")
	case h.NetworkMode == "":
		return refuse("HostConfig.NetworkMode", errors.New("it must name a network"), "")
	case h.RestartPolicy.Name != "no":
		return refuse("HostConfig.RestartPolicy", errors.New("the engine must not restart containers by itself"), "")
	case c.Healthcheck == nil:
		return refuse("Config.Healthcheck", errors.New("the image's own must be switched off"), "")
	case len(c.Entrypoint) == 0:
		return refuse("Config.Entrypoint", errors.New("it must be the launcher"), "")
	}
	return k.visibleDevices()
}

// visibleDevices makes sure that NVIDIA's hook, where it is the default runtime,
// gives away no device that was not granted: it obeys the environment, and an
// image can set that.
func (k *checker) visibleDevices() error {
	const name = "NVIDIA_VISIBLE_DEVICES="
	value, count := "", 0
	for _, e := range k.conf.Env {
		if v, ok := strings.CutPrefix(e, name); ok {
			value, count = v, count+1
		}
	}
	if count != 1 {
		return refuse("Config.Env", fmt.Errorf("%s must be set once, it is set %d times", name, count), "")
	}
	if value == "void" {
		return nil
	}
	for id := range strings.SplitSeq(value, ",") {
		if !slices.Contains(k.grant.GPUs, id) {
			return refuse("Config.Env", fmt.Errorf("%s%s names a device that was not granted", name, value),
				"ask for devices in resources.limits")
		}
	}
	return nil
}

// inside reports whether path is dir or lies below it. Both are clean.
func inside(dir, path string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+string(filepath.Separator))
}
