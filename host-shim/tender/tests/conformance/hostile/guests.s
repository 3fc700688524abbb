# Guests that mean harm, or have gone mad. Each is loaded at 0x100000 with 2 MiB of memory or more, and starts with its
# boot information in rdi. All above its own page is memory to read and write; below 0x100000, in ring 3, the tender
# keeps a page of its own at 0xff000 that such a guest can reach as well.

.set SCRATCH, 0x180000
.set BUFFER, 0x181000
.set TENDERS_PAGE, 0xff000
# Offset in that page of the tender's own stack pointer.
.set HOST_RSP, 0x10

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

guest loops
    jmp guest_loops
endguest loops

# The same with nothing left that a signal handler could stand on.
guest loops_in_ruins
    std
    xor esp, esp
    xor ebp, ebp
2:  jmp 2b
endguest loops_in_ruins

guest sleeps
    mov rax, -1
    mov [SCRATCH], rax
    hypercall 3
    halt 0
endguest sleeps

# Sleeps for 0.2 s.
guest naps
    mov qword ptr [SCRATCH], 200000000
    hypercall 3
    halt 0
endguest naps

# Each exception is handled by an instruction that raises it again, on the same stack.
guest faults_forever
    # Gate 14: present, 64-bit, to `2:` below, on stack 1 of the TSS.
    lea rax, [rip + 2f]
    mov [BUFFER + 14 * 16], ax
    mov word ptr [BUFFER + 14 * 16 + 2], 8
    mov byte ptr [BUFFER + 14 * 16 + 4], 1
    mov byte ptr [BUFFER + 14 * 16 + 5], 0x8e
    shr rax, 16
    mov [BUFFER + 14 * 16 + 6], eax
    # A TSS at SCRATCH whose stack 1 is at 0x190000, and its descriptor at SCRATCH + 0x100.
    mov qword ptr [SCRATCH + 36], 0x190000
    mov rax, 0x0000891800000067
    mov [SCRATCH + 0x100 + 8], rax
    mov word ptr [SCRATCH + 0x200], 0xf
    mov qword ptr [SCRATCH + 0x202], SCRATCH + 0x100
    lgdt [SCRATCH + 0x200]
    mov word ptr [SCRATCH + 0x210], 0xfff
    mov qword ptr [SCRATCH + 0x212], BUFFER
    lidt [SCRATCH + 0x210]
    mov ax, 8
    ltr ax
2:  mov byte ptr [0], 1
    jmp 2b
endguest faults_forever

# An exception where nothing has been set up to handle it.
guest faults
    mov byte ptr [0], 1
endguest faults

# Its descriptor table is at an address that no pointer can be.
guest has_mad_tables
    mov word ptr [SCRATCH], 0xfff
    mov rax, 0xdead000000000000
    mov [SCRATCH + 2], rax
    lidt [SCRATCH]
    mov byte ptr [0], 1
endguest has_mad_tables

guest jumps_away
    mov rax, 0x7000deadbeef
    jmp rax
endguest jumps_away

guest jumps_to_no_address
    mov rax, 0xdead0000deadbeef
    push rax
    ret
endguest jumps_to_no_address

# One line as often as ecx says, then a normal end.
guest floods
    mov byte ptr [BUFFER + 0], 0x61
    mov rdi, BUFFER
    mov al, 0x61
    mov ecx, 4096
    rep stosb
    mov byte ptr [BUFFER + 4095], 0x0a
    mov ebx, 16384
2:  puts BUFFER, 4096
    dec ebx
    jnz 2b
    halt 0
endguest floods

guest floods_forever
2:  puts BUFFER, 0x10000
    jmp 2b
endguest floods_forever

# Prints the tender's stack from where it is now up to its end, where the kernel has put arguments and environment.
guest reads_the_tenders_stack
    mov rbx, [TENDERS_PAGE + HOST_RSP]
    and rbx, -64
2:  mov rsi, rbx
    mov edi, BUFFER
    mov ecx, 64
    rep movsb
    puts BUFFER, 64
    add rbx, 64
    jmp 2b
endguest reads_the_tenders_stack

# Asks the tender to print it.
guest has_the_tenders_stack_printed
    mov rbx, [TENDERS_PAGE + HOST_RSP]
    puts rbx, 64
    halt 0
endguest has_the_tenders_stack_printed

# Takes the ground from under the tender, then asks it for something.
guest ruins_the_tenders_page
    mov edi, TENDERS_PAGE
    mov ecx, 512
    mov rax, 0x1234567812345678
    rep stosq
    hypercall 1
    halt 0
endguest ruins_the_tenders_page

guest ruins_the_tenders_stack
    mov rdi, [TENDERS_PAGE + HOST_RSP]
    sub rdi, 0x800
    mov ecx, 0x200
    mov rax, 0x1234567812345678
    rep stosq
    hypercall 1
    trapping_hypercall 1
    halt 0
endguest ruins_the_tenders_stack

guest writes_to_its_code
    lea rax, [rip]
    mov byte ptr [rax], 0x90
endguest writes_to_its_code

guest writes_to_its_boot_information
    mov byte ptr [rdi], 0
endguest writes_to_its_boot_information

# A jump to itself in memory that is only to be written.
guest runs_its_data
    mov word ptr [BUFFER], 0xfeeb
    mov eax, BUFFER
    jmp rax
endguest runs_its_data

# Not hostile but particular: it makes each hypercall but the last, as it is made and as nobody makes it, and ends with
# status 1 where any register, flag or vector is not what it was. Handle 1 is a disk, handle 2 a net.
.macro prepares_calls
    # Arguments: walltime at SCRATCH + 0x100, and so on.
    mov qword ptr [SCRATCH + 0x200], BUFFER + 0x8000
    mov qword ptr [SCRATCH + 0x208], 1
    mov byte ptr [BUFFER + 0x8000], 0x2e
    mov qword ptr [SCRATCH + 0x300], 0
    .irp call, 0x400, 0x500
    mov qword ptr [SCRATCH + \call], 1
    mov qword ptr [SCRATCH + \call + 8], 512
    mov qword ptr [SCRATCH + \call + 16], BUFFER + 0x8000
    mov qword ptr [SCRATCH + \call + 24], 512
    .endr
    .irp call, 0x600, 0x700
    mov qword ptr [SCRATCH + \call], 2
    mov qword ptr [SCRATCH + \call + 8], BUFFER + 0x8000
    mov qword ptr [SCRATCH + \call + 16], 60
    .endr
.endm

.macro makes_calls
    .irp number, 1, 2, 3, 4, 5, 6, 7
    hypercall \number, SCRATCH + 0x100 * \number
    trapping_hypercall \number, SCRATCH + 0x100 * \number
    .endr
.endm

# Vectors \prefix 0 to \last of \size bytes: fills them from BUFFER, makes all calls, looks at them again.
.macro keeps_vectors prefix, last, size, move
    prepares_calls
    mov edi, BUFFER
    mov ecx, 0x800
2:  mov al, cl
    imul eax, eax, 37
    stosb
    loop 2b
    .set number, 0
    .rept \last + 1
    load_vector \move, \prefix, %number, \size
    .set number, number + 1
    .endr
    makes_calls
    .set number, 0
    .rept \last + 1
    store_vector \move, \prefix, %number, \size
    .set number, number + 1
    .endr
    mov esi, BUFFER
    mov edi, BUFFER + 0x1000
    mov ecx, (\last + 1) * \size
    repe cmpsb
    jne 3f
    halt 0
3:  halt 1
.endm

.macro load_vector move, prefix, number, size
    \move \prefix\number, [BUFFER + \number * \size]
.endm

.macro store_vector move, prefix, number, size
    \move [BUFFER + 0x1000 + \number * \size], \prefix\number
.endm

.altmacro
guest keeps_sse
    keeps_vectors xmm, 15, 16, movups
endguest keeps_sse

guest keeps_avx
    keeps_vectors ymm, 15, 32, vmovups
endguest keeps_avx

guest keeps_avx512
    keeps_vectors zmm, 31, 64, vmovups
endguest keeps_avx512
.noaltmacro

guest keeps_registers
    prepares_calls
    .irp number, 1, 2, 3, 4, 5, 6, 7
    .irp trap, 0, 1
    .irp flags, 0xcd5, 0x8d5, 0x0d5, 0x802, 0x002, 0x091, 0x844
    # Each is told by its own number, but the two that the call itself takes. Of the flags, the first turn has
    # all that a program may set, the others some.
    mov ecx, 1
    mov ebx, 3
    mov ebp, 5
    mov esi, 6
    mov edi, 7
    .irp register, 8, 9, 10, 11, 12, 13, 14, 15
    mov r\register, \register
    .endr
    mov r15, rsp
    push \flags
    popfq
    .if \trap
    mov edx, 0x500 + \number
    mov eax, SCRATCH + 0x100 * \number
    out dx, eax
    .else
    mov eax, SCRATCH + 0x100 * \number
    mov edx, 0x500 + \number
    out dx, eax
    .endif
    pushfq
    cld
    xor qword ptr [rsp], \flags
    test dword ptr [rsp], 0xcd5
    jnz 9f
    add rsp, 8
    cmp rsp, r15
    jne 9f
    cmp eax, SCRATCH + 0x100 * \number
    jne 9f
    cmp edx, 0x500 + \number
    jne 9f
    lea rax, [rcx + rbx]
    lea rax, [rax + rbp]
    lea rax, [rax + rsi]
    lea rax, [rax + rdi]
    .irp register, 8, 9, 10, 11, 12, 13, 14
    lea rax, [rax + r\register]
    .endr
    cmp rax, 1 + 3 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14
    jne 9f
    .endr
    .endr
    .endr
    halt 0
9:  halt 1
endguest keeps_registers

# Aborts with something to find in its core file.
guest aborts
    mov rbx, 0x1122334455667788
    mov [BUFFER], rbx
    halt 255
endguest aborts

# The same from a trap: its frame, as the bindings have it, is where the cookie points.
guest aborts_from_a_trap
    mov qword ptr [BUFFER + 16], 0x123456
    mov qword ptr [BUFFER + 24], 8
    mov qword ptr [BUFFER + 32], 0x202
    mov qword ptr [BUFFER + 40], 0x1ff000
    mov qword ptr [BUFFER + 48], 16
    mov qword ptr [SCRATCH], BUFFER
    mov dword ptr [SCRATCH + 8], 255
    hypercall 8
endguest aborts_from_a_trap

# Prints the two bytes of its first device's MTU.
guest prints_its_mtu
    mov rax, [rdi + 32]
    add rax, 8 + 104 + 78
    puts rax, 2
    halt 0
endguest prints_its_mtu

# For spt: reads the clocks that its bindings read, and ends.
guest tells_both_times
    mov ebx, 2
2:  dec ebx
    mov edi, ebx
    mov esi, SCRATCH
    mov eax, 228
    syscall
    test ebx, ebx
    jnz 2b
    xor edi, edi
    mov eax, 231
    syscall
endguest tells_both_times

# A million hypercalls with random arguments, through one `out` that traps and one that is patched. Handles, offsets and
# lengths are any numbers, but mostly small ones, so that some of them mean something; pointers are within memory, as the
# first that is not would be the guest's end.
guest asks_for_anything
    mov r15, 0x9e3779b97f4a7c15
    mov ebx, 500000
2:  mov r14d, 3
    call 8f
    mov [SCRATCH], rax
    # A block device's offset, data and length.
    mov r14d, 0x1fff
    call 8f
    mov [SCRATCH + 8], rax
    call 9f
    and eax, 0xffff
    lea r13, [rax + 0x190000]
    mov [SCRATCH + 16], r13
    mov r14d, 0x3ff
    call 8f
    mov [SCRATCH + 24], rax
    call 9f
    and eax, 1
    lea edx, [rax + 0x504]
    mov eax, SCRATCH
    out dx, eax
    # A net device's data and length. (A frame without room for its header is an error that ends the guest.)
    mov [SCRATCH + 8], r13
    call 9f
    and eax, 0x3ff
    add eax, 14
    mov [SCRATCH + 16], rax
    test eax, 1
    jz 3f
    hypercall 6
    jmp 4f
3:  hypercall 7
4:  dec ebx
    jnz 2b
    halt 0
    # rax: three times of four at most r14, else anything.
8:  call 9f
    test eax, 0x30000
    jz 1f
    and rax, r14
1:  ret
    # rax: the next random number (xorshift).
9:  mov rax, r15
    shl rax, 13
    xor r15, rax
    mov rax, r15
    shr rax, 7
    xor r15, rax
    mov rax, r15
    shl rax, 17
    xor r15, rax
    mov rax, r15
    ret
endguest asks_for_anything
