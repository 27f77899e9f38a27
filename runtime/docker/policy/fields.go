package policy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// hostFields is the closed list for HostConfig (with its embedded Resources).
// A nil check accepts any value.
var hostFields = map[string]check{
	"LogConfig":      checkLog,
	"NetworkMode":    checkNetwork,
	"RestartPolicy":  checkRestart,
	"CapAdd":         checkCapAdd,
	"CapDrop":        nil, // required() holds it to ALL
	"IpcMode":        equal("private"),
	"CgroupnsMode":   equal("private"),
	"OomScoreAdj":    checkOOMScore,
	"SecurityOpt":    nil, // required() holds it to no-new-privileges
	"ShmSize":        atLeast(0),
	"Runtime":        checkRuntime,
	"Mounts":         checkMounts,
	"Init":           checkInit,
	"NanoCPUs":       atLeast(0),
	"Memory":         atLeast(0),
	"MemorySwap":     nil, // required() holds it to Memory
	"PidsLimit":      checkPids,
	"Ulimits":        checkUlimits,
	"DeviceRequests": checkDeviceRequests,
}

// configFields is the closed list for Config.
var configFields = map[string]check{
	"Hostname":    nil,
	"User":        nil,
	"Env":         nil, // visibleDevices() looks at the one that matters
	"Cmd":         nil,
	"Healthcheck": checkHealth,
	"Image":       nil,
	"Labels":      nil,
	"StopSignal":  equal("SIGTERM"),
	"StopTimeout": nil,
	"Entrypoint":  checkEntrypoint,
}

// mountFields is the closed list for one mount of each kind.
var mountFields = map[string]check{
	"Type":         nil,
	"Source":       nil,
	"Target":       nil,
	"ReadOnly":     nil,
	"BindOptions":  checkBindOptions,
	"TmpfsOptions": checkTmpfsOptions,
}

func equal(want string) check {
	return func(_ *checker, v reflect.Value) error {
		if v.String() != want {
			return fmt.Errorf("%q is not allowed, only %q is", v.String(), want)
		}
		return nil
	}
}

func atLeast(lowest int64) check {
	return func(_ *checker, v reflect.Value) error {
		if v.Int() < lowest {
			return fmt.Errorf("%d is not allowed", v.Int())
		}
		return nil
	}
}

func checkLog(_ *checker, v reflect.Value) error {
	l := v.Interface().(dockerapi.LogConfig)
	for name := range l.Config {
		if name != "max-size" && name != "max-file" {
			return fmt.Errorf("log option %q is not allowed", name)
		}
	}
	if l.Type != "json-file" {
		return fmt.Errorf("log driver %q is not allowed", l.Type)
	}
	return nil
}

func checkNetwork(k *checker, v reflect.Value) error {
	if v.String() != k.grant.Network || v.String() == "host" || strings.HasPrefix(v.String(), "container:") {
		return fmt.Errorf("network %q is not the namespace's", v.String())
	}
	return nil
}

func checkRestart(_ *checker, v reflect.Value) error {
	if p := v.Interface().(dockerapi.RestartPolicy); p.MaximumRetryCount != 0 {
		return errors.New("the engine must not restart containers by itself")
	}
	return nil
}

func checkCapAdd(_ *checker, v reflect.Value) error {
	for i := range v.Len() {
		if name := v.Index(i).String(); !slices.Contains(capabilities, name) {
			return fmt.Errorf("capability %q is not allowed", name)
		}
	}
	return nil
}

func checkOOMScore(_ *checker, v reflect.Value) error {
	if v.Int() < 0 || v.Int() > 1000 {
		return fmt.Errorf("%d is not allowed: a container must die before the daemon does", v.Int())
	}
	return nil
}

func checkRuntime(k *checker, v reflect.Value) error {
	if len(k.grant.GPUs) == 0 || v.String() != k.grant.Runtime {
		return fmt.Errorf("runtime %q is not allowed", v.String())
	}
	return nil
}

func checkInit(_ *checker, v reflect.Value) error {
	if v.Elem().Bool() {
		return errors.New("the launcher is the first process, no other one may be")
	}
	return nil
}

func checkPids(_ *checker, v reflect.Value) error {
	if n := v.Elem().Int(); n <= 0 {
		return fmt.Errorf("%d means no limit", n)
	}
	return nil
}

// checkUlimits: none of them reaches beyond the container's own limits.
func checkUlimits(_ *checker, v reflect.Value) error {
	for _, u := range v.Interface().([]*dockerapi.Ulimit) {
		if !slices.Contains([]string{"nofile", "memlock", "stack", "core"}, u.Name) {
			return fmt.Errorf("limit %q is not allowed", u.Name)
		}
	}
	return nil
}

func checkDeviceRequests(k *checker, v reflect.Value) error {
	for _, r := range v.Interface().([]dockerapi.DeviceRequest) {
		if r.Driver != "cdi" && r.Driver != "nvidia" {
			return fmt.Errorf("device driver %q is not allowed", r.Driver)
		}
		if r.Count != 0 || len(r.Options) != 0 || len(r.DeviceIDs) == 0 {
			return errors.New("devices must be named one by one")
		}
		for _, id := range r.DeviceIDs {
			if r.Driver == "cdi" {
				id = strings.TrimPrefix(id, "nvidia.com/gpu=")
			}
			if !slices.Contains(k.grant.GPUs, id) {
				return fmt.Errorf("device %q was not granted", id)
			}
		}
		for _, set := range r.Capabilities {
			for _, c := range set {
				if !slices.Contains([]string{"gpu", "compute", "utility"}, c) {
					return fmt.Errorf("driver capability %q is not allowed", c)
				}
			}
		}
	}
	return nil
}

func checkHealth(_ *checker, v reflect.Value) error {
	h := v.Interface().(*dockerapi.HealthConfig)
	if !slices.Equal(h.Test, []string{"NONE"}) {
		return errors.New("the engine must not run health checks: each is a process every few seconds")
	}
	return nil
}

func checkEntrypoint(k *checker, v reflect.Value) error {
	if v.Len() != 1 || v.Index(0).String() != k.rules.Entrypoint {
		return errors.New("the launcher must be the first process")
	}
	return nil
}

func checkBindOptions(_ *checker, v reflect.Value) error {
	o := *v.Interface().(*dockerapi.BindOptions)
	if o.Propagation != dockerapi.PropagationPrivate {
		return fmt.Errorf("propagation %q would let mounts through", o.Propagation)
	}
	o.Propagation = ""
	if !reflect.ValueOf(o).IsZero() {
		return errors.New("only the propagation may be set")
	}
	return nil
}

func checkTmpfsOptions(_ *checker, v reflect.Value) error {
	if o := v.Interface().(*dockerapi.TmpfsOptions); len(o.Options) != 0 {
		return errors.New("only size and mode may be set")
	}
	return nil
}
