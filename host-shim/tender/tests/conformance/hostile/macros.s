# Guests that mean harm, or have gone mad. Each is loaded at 0x100000 with 2 MiB of memory or more, and starts with its
# boot information in rdi. All above its own page is memory to read and write; below 0x100000, in ring 3, the tender
# keeps a page of its own at 0xff000 that such a guest can reach as well.

.set SCRATCH, 0x180000
.set BUFFER, 0x181000
.set TENDERS_PAGE, 0xff000
# Offset in that page of the tender's own stack pointer.
.set HOST_RSP, 0x50

.macro guest name
    .pushsection .rodata.guests, "a"
    .globl guest_\name
    guest_\name:
.endm

.macro endguest name
    .globl guest_\name\()_end
    guest_\name\()_end:
    .popsection
.endm

# As the bindings make it, so that ring 3 patches it.
.macro hypercall number, argument=SCRATCH
    mov eax, \argument
    mov edx, 0x500 + \number
    out dx, eax
.endm

# As nobody makes it, so that it always traps.
.macro trapping_hypercall number, argument=SCRATCH
    mov edx, 0x500 + \number
    mov eax, \argument
    out dx, eax
.endm

.macro puts text, len
    mov qword ptr [SCRATCH], \text
    mov qword ptr [SCRATCH + 8], \len
    hypercall 2
.endm

.macro halt status
    mov qword ptr [SCRATCH], 0
    mov dword ptr [SCRATCH + 8], \status
    hypercall 8
.endm
