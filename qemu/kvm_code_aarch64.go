package qemu

import "encoding/binary"

// aarch64ProbeImage returns a firmware image for the machine type virt, which starts it at address 0.
func aarch64ProbeImage() []byte {
	var image []byte
	for _, instruction := range aarch64ProbeCode() {
		image = binary.LittleEndian.AppendUint32(image, instruction)
	}
	return image
}

// aarch64ProbeCode does what an operating system does early, and writes a letter to the serial port after
// each step.
func aarch64ProbeCode() []uint32 {
	return []uint32{
		// x0: the serial port. The first letter goes out with the MMU off.
		0xd2a12000, // 00 mov x0, #0x9000000
		0x52800e41, // 04 mov w1, #0x72
		0xb9000001, // 08 str w1, [x0]
		// Translation tables at the start of RAM, 39-bit addresses: 0–1 GiB by the second table (the flash
		// with this code, the serial port), 1–2 GiB (RAM) in one block.
		0xd2a80002, // 0c mov x2, #0x40000000
		0xd2820063, // 10 mov x3, #0x1003
		0xf2a80003, // 14 movk x3, #0x4000, lsl #16
		0xf9000043, // 18 str x3, [x2]
		0xd280e0a3, // 1c mov x3, #0x705
		0xf2a80003, // 20 movk x3, #0x4000, lsl #16
		0xf9000443, // 24 str x3, [x2, #8]
		0x91400444, // 28 add x4, x2, #0x1, lsl #12
		0xd280e0a3, // 2c mov x3, #0x705
		0xf9000083, // 30 str x3, [x4]
		0xd2808023, // 34 mov x3, #0x401
		0xf2a12003, // 38 movk x3, #0x900, lsl #16
		0xf9012083, // 3c str x3, [x4, #576]
		// Memory attributes 0 (device) and 1 (uncached), the tables, MMU on.
		0xd5033f9f, // 40 dsb sy
		0xd2888003, // 44 mov x3, #0x4400
		0xd518a203, // 48 msr mair_el1, x3
		0xd2860323, // 4c mov x3, #0x3019
		0xf2a01003, // 50 movk x3, #0x80, lsl #16
		0xd5182043, // 54 msr tcr_el1, x3
		0xd5182002, // 58 msr ttbr0_el1, x2
		0xd5033fdf, // 5c isb
		0xd508871f, // 60 tlbi vmalle1
		0xd503379f, // 64 dsb nsh
		0xd5033fdf, // 68 isb
		0xd5381003, // 6c mrs x3, sctlr_el1
		0xb2400063, // 70 orr x3, x3, #0x1
		0xd5181003, // 74 msr sctlr_el1, x3
		0xd5033fdf, // 78 isb
		0x52800da1, // 7c mov w1, #0x6d
		0xb9000001, // 80 str w1, [x0]
		// The virtual timer, polled until it has expired.
		0xd284e203, // 84 mov x3, #0x2710
		0xd51be303, // 88 msr cntv_tval_el0, x3
		0xd2800063, // 8c mov x3, #0x3
		0xd51be323, // 90 msr cntv_ctl_el0, x3
		0xd5033fdf, // 94 isb
		0xd53be323, // 98 mrs x3, cntv_ctl_el0
		0x3617ffe3, // 9c tbz w3, #2, 0x98
		0x52800e81, // a0 mov w1, #0x74
		0xb9000001, // a4 str w1, [x0]
		// The processor’s own speed.
		0x52a02003, // a8 mov w3, #0x1000000
		0x71000463, // ac subs w3, w3, #0x1
		0x54ffffe1, // b0 b.ne 0xac
		0x528005c1, // b4 mov w1, #0x2e
		0xb9000001, // b8 str w1, [x0]
		// PSCI SYSTEM_OFF.
		0x52800100, // bc mov w0, #0x8
		0x72b08000, // c0 movk w0, #0x8400, lsl #16
		0xd4000002, // c4 hvc #0x0
		0x14000000, // c8 b 0xc8
	}
}
