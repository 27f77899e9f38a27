package device

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/problem"
)

func TestEveryFixtureLoads(t *testing.T) {
	want := map[string]struct {
		devices int
		driver  string
		classes []int // row 0
	}{
		"dgx-1-v100": {8, "535.183.01", []int{0, 100, 100, 200, 200, 10, 10, 10}},
		"dgx-a100":   {8, "550.127.05", []int{0, 1200, 1200, 1200, 1200, 1200, 1200, 1200}},
		"dgx-h100":   {8, "570.86.15", []int{0, 1800, 1800, 1800, 1800, 1800, 1800, 1800}},
		"laptop":     {1, "560.35.03", []int{0}},
		"pcie-2x":    {2, "550.127.05", []int{0, 400}},
	}
	names := FakeNames()
	if len(names) != len(want) || !slices.IsSorted(names) {
		t.Fatalf("fixtures %v, want those of %v, sorted", names, want)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			v, err := LoadFake(name)
			if err != nil {
				t.Fatal(err)
			}
			w := want[name]
			if len(v.Devices) != w.devices || v.Driver != w.driver || v.Source != "fake "+name || !v.Fake {
				t.Errorf("got %d devices, driver %s, source %s, fake %v; want %+v", len(v.Devices), v.Driver, v.Source, v.Fake, w)
			}
			if err := v.Check(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(w.classes, v.LinkClasses()[0]); diff != "" {
				t.Errorf("row 0 of the link classes (-want +got):\n%s", diff)
			}
			for i, d := range v.Devices {
				if !d.Fake || !strings.HasPrefix(d.UUID, FakePrefix+name+"-") || d.Index != i || !d.Schedulable() {
					t.Errorf("device %d is not a declared, usable one named after its fixture: %+v", i, d)
				}
				if d.MemoryBytes < 1<<30 || d.PCIBusID == "" || d.NUMA < 0 || d.CPUAffinity == "" || d.ComputeCapability == "" {
					t.Errorf("device %d lacks a property: %+v", i, d)
				}
				for j := range v.Devices {
					if v.Links[i][j] != v.Links[j][i] {
						t.Errorf("links[%d][%d] is %s, links[%d][%d] is %s", i, j, v.Links[i][j], j, i, v.Links[j][i])
					}
				}
			}
			if !strings.Contains(v.Summary(), "declared, no such hardware exists") {
				t.Errorf("summary %q does not say that it is fake", v.Summary())
			}
		})
	}
}

// Each V100 has six NVLinks; a fixture that wires more or fewer is wrong.
func TestV100Wiring(t *testing.T) {
	v, err := LoadFake("dgx-1-v100")
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range v.Links {
		lanes := 0
		for _, l := range row {
			lanes += l.Lanes
		}
		if lanes != 6 {
			t.Errorf("device %d has %d NVLinks, want 6", i, lanes)
		}
	}
}

func TestUserFile(t *testing.T) {
	const two = `{"name":"lab","gpus":[{"model":"A","memory":"16Gi"},{"model":"B","memory":"8Gi","numa":1,"health":"Suspect"}]}`
	for _, c := range []struct {
		name, text string
		want       []string // parts of the error, one a problem; none means it loads
	}{
		{"smallest", two, nil},
		{"yaml", "name: lab\ngpus:\n- {model: A, memory: 16Gi}\n", nil},
		{"empty", ``, []string{"want an object, not nothing"}},
		{"list", `[]`, []string{"want an object, not a list"}},
		{"not a document", `{"name":`, []string{"yaml"}},
		{"no name", `{"gpus":[{"model":"A","memory":"1Gi"}]}`, []string{"name: is required"}},
		{"bad name", `{"name":"Lab 1","gpus":[{"model":"A","memory":"1Gi"}]}`, []string{`name: "Lab 1": want lower-case`}},
		{"no gpus", `{"name":"lab"}`, []string{"gpus: needs at least one"}},
		{"gpus is an object", `{"name":"lab","gpus":{}}`, []string{"gpus: want a list, not an object"}},
		{"unknown top field", `{"name":"lab","nodes":1,"gpus":[{"model":"A","memory":"1Gi"}]}`, []string{"nodes: unknown field"}},
		{"unknown device field", `{"name":"lab","gpus":[{"model":"A","memroy":"1Gi","memory":"1Gi"}]}`, []string{"gpus[0].memroy: unknown field"}},
		{"given twice", `{"name":"lab","name":"lab","gpus":[{"model":"A","memory":"1Gi"}]}`, []string{`key "name" already set`}},
		{"memory missing", `{"name":"lab","gpus":[{"model":"A"}]}`, []string{"gpus[0].memory: is required"}},
		{"memory not text", `{"name":"lab","gpus":[{"model":"A","memory":17}]}`, []string{"gpus[0].memory: want a string, not the number 17"}},
		{"memory no amount", `{"name":"lab","gpus":[{"model":"A","memory":"much"}]}`, []string{"gpus[0].memory: quantity"}},
		{"memory zero", `{"name":"lab","gpus":[{"model":"A","memory":"0"}]}`, []string{"gpus[0].memory", "between 1 byte"}},
		{"memory huge", `{"name":"lab","gpus":[{"model":"A","memory":"9E"}]}`, []string{"gpus[0].memory", "between 1 byte"}},
		{"real uuid", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi","uuid":"GPU-5a1c9d3e"}]}`, []string{"gpus[0].uuid", "must not pass for a real one"}},
		{"uuid with comma", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi","uuid":"GPU-FAKE-a,GPU-FAKE-b"}]}`, []string{"gpus[0].uuid"}},
		{"uuid twice", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi","uuid":"GPU-FAKE-a"},{"model":"A","memory":"1Gi","uuid":"GPU-FAKE-a"}]}`, []string{"gpus[1].uuid: GPU-FAKE-a is also gpus[0]"}},
		{"slot twice", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi","pci":"0000:01:00.0"},{"model":"A","memory":"1Gi","pci":"0000:01:00.0"}]}`, []string{"gpus[1].pci"}},
		{"bad words", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi","mig":"maybe","health":"fine","numa":1.5,"pci":"first","cpuAffinity":"all","computeCapability":"new"}]}`,
			[]string{"gpus[0].mig", "gpus[0].health", "gpus[0].numa", "gpus[0].pci", "gpus[0].cpuAffinity", "gpus[0].computeCapability"}},
		{"line break in model", `{"name":"lab","gpus":[{"model":"A\nB","memory":"1Gi"}]}`, []string{"gpus[0].model: want at most"}},
		{"rows", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi"}],"links":[]}`, []string{"links: 0 rows for 1 devices"}},
		{"columns", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi"}],"links":[["X","X"]]}`, []string{"links[0]: 2 columns"}},
		{"bad link", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi"}],"links":[["NV0"]]}`, []string{"links[0][0]: link \"NV0\""}},
		{"diagonal", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi"}],"links":[["NV1"]]}`, []string{"links[0][0]: X stands on the diagonal"}},
		{"asymmetric", `{"name":"lab","gpus":[{"model":"A","memory":"1Gi"},{"model":"A","memory":"1Gi"}],"links":[["X","NV2"],["NV1","X"]]}`,
			[]string{"links[1][0]: NV1, but links[0][1] says NV2"}},
		{"too many", `{"name":"lab","gpus":[` + strings.Repeat(`{"model":"A","memory":"1Gi"},`, MaxDevices) + `{"model":"A","memory":"1Gi"}]}`, []string{"gpus: 65 devices"}},
		{"too large", two + strings.Repeat(" ", maxFixture), []string{"larger than"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "gpus.json")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := LoadFake(file)
			if len(c.want) == 0 {
				if err != nil || len(v.Devices) == 0 || !v.Fake {
					t.Fatalf("got %+v, %v; want declared devices", v, err)
				}
				return
			}
			if !errors.Is(err, problem.ErrInvalid) {
				t.Fatalf("got %v, want an ErrInvalid", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error does not say %q:\n%v", part, err)
				}
			}
			if !strings.Contains(err.Error(), file) {
				t.Errorf("error does not name the file: %v", err)
			}
		})
	}
}

func TestUserFileValues(t *testing.T) {
	v, err := parseFake([]byte(`{"name":"lab","driver":"1.2","gpus":[
		{"model":"A","memory":"1.5Gi","uuid":"GPU-FAKE-x","pci":"0000:01:00.0","numa":-1,"cpuAffinity":"0-3,8","mig":"enabled","computeCapability":"9.0"},
		{"model":"B","memory":"8G","health":"Suspect"}],"links":[["X","PHB"],["PHB","X"]]}`), "lab.json")
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{UUID: "GPU-FAKE-x", Model: "A", MemoryBytes: 3 << 29, PCIBusID: "0000:01:00.0", NUMA: -1, CPUAffinity: "0-3,8",
			MIG: MIGEnabled, ComputeCapability: "9.0", Health: Healthy, Minor: -1, Fake: true},
		{UUID: "GPU-FAKE-lab-1", Index: 1, Model: "B", MemoryBytes: 8e9, NUMA: -1, MIG: MIGUnsupported, Health: Suspect, HealthReason: "declared so", Minor: -1, Fake: true},
	}
	if diff := cmp.Diff(want, v.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if v.Devices[0].Schedulable() || v.Devices[1].Schedulable() {
		t.Error("a device in MIG mode or under suspicion gets work")
	}
}

func TestUnknownNameListsWhatThereIs(t *testing.T) {
	_, err := LoadFake("dgx-b300")
	if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "dgx-1-v100, dgx-a100, dgx-h100, laptop, pcie-2x") {
		t.Errorf("got %v, want the names there are", err)
	}
	if _, err := LoadFake(t.TempDir()); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: got %v", err)
	}
}

func TestRefuseFake(t *testing.T) {
	declared, err := LoadFake("laptop")
	if err != nil {
		t.Fatal(err)
	}
	if err := RefuseFake(declared, Inventory{Source: "none"}); err != nil {
		t.Errorf("no real devices: %v", err)
	}
	if err := RefuseFake(declared, declared); err != nil {
		t.Errorf("only declared devices: %v", err)
	}
	root := fstest.MapFS{"proc/driver/nvidia/gpus/0000:0f:00.0/information": {Data: []byte(a100Information)}}
	_, err = Declare("laptop", root)
	if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "1 × NVIDIA A100") || !strings.Contains(err.Error(), "force:NAME") {
		t.Errorf("got %v, want a refusal that names the device and the remedy", err)
	}
	for spec, root := range map[string]fstest.MapFS{"laptop": {}, "force:laptop": root} {
		s, err := Declare(spec, root)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		if v, err := s.Inventory(t.Context()); err != nil || !v.Fake || len(v.Devices) != 1 || v.Devices[0].UUID != "GPU-FAKE-laptop-0" {
			t.Errorf("%s: %+v, %v", spec, v, err)
		}
	}
	if _, err := Declare("force:nothing", root); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("forced, but unknown: %v", err)
	}
}

func TestStaticSource(t *testing.T) {
	v, err := LoadFake("pcie-2x")
	if err != nil {
		t.Fatal(err)
	}
	s := NewStatic(v)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	err = s.Watch(ctx, func(got Inventory) {
		if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("watched (-want +got):\n%s", diff)
		}
		got.Devices[0].UUID, got.Links[0][1] = "changed", Link{}
		cancel(stop)
	})
	if !errors.Is(err, stop) {
		t.Errorf("watch ended with %v, want the cause", err)
	}
	again, err := s.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, again); diff != "" {
		t.Errorf("a caller's change reached the source (-want +got):\n%s", diff)
	}
	usage, processes, err := s.Usage(t.Context())
	if err != nil || len(usage) != 2 || len(processes) != 0 {
		t.Errorf("usage of declared devices: %v, %v, %v", usage, processes, err)
	}
}

func FuzzParseFake(f *testing.F) {
	for _, name := range FakeNames() {
		data, err := fixtures.ReadFile("fixtures/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := parseFake(data, "fuzz")
		if err != nil {
			if !errors.Is(err, problem.ErrInvalid) {
				t.Errorf("%v is not an ErrInvalid", err)
			}
			return
		}
		if err := v.Check(); err != nil || !v.Fake || len(v.Devices) == 0 {
			t.Errorf("accepted an inventory that is not one: %v: %+v", err, v)
		}
	})
}
